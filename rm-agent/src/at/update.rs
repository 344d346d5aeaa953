//! UPDATE, also with FROM.

use sqlparser::ast::{
    JoinConstraint, JoinOperator, TableFactor, TableWithJoins, Update, UpdateTableFromKind,
};

use super::{
    analysis::{Reader, assigned_columns, identifier, single_table, table_name},
    escrow,
    statement::{Analysis, Unsupported, Uses, WriteKind, WriteStatement},
    table::quote,
};

impl Reader<'_> {
    pub(super) fn update(&self, update: &Update, uses: Uses) -> Result<Analysis, Unsupported> {
        self.no_reserved_names()?;
        let main = self.main_keyword("UPDATE")?;
        self.no_only(main + 1)?;
        let (table, reference) = single_table(&update.table)?;
        let set = self
            .find(main, "SET")
            .ok_or_else(|| self.seen_differently())?;
        let from = self.find_from(set);
        let condition = self.find(set, "WHERE");
        let returning = self.find(set, "RETURNING");
        let clauses = [from, condition, returning];
        if from.is_some() != update.from.is_some()
            || condition.is_some() != update.selection.is_some()
            || returning.is_some() != update.returning.is_some()
            || !clauses.iter().flatten().is_sorted()
        {
            return Err(self.seen_differently());
        }
        let start = |index: usize| self.tokens[index].span.start;
        let end = |index: usize| self.tokens[index].span.end;
        let after_condition = returning.map_or(self.end(), start);
        let after_from = condition.map_or(after_condition, start);
        let wildcards = returning.map_or_else(Vec::new, |r| self.wildcards(r));
        let mut wildcard_sources = vec![reference.clone()];
        if !wildcards.is_empty()
            && let Some(UpdateTableFromKind::AfterSet(from)) = &update.from
        {
            wildcard_sources.extend(row_sources(from)?);
        }
        Ok(Analysis::Write(Box::new(WriteStatement {
            kind: WriteKind::Update,
            aliased: has_alias(&update.table.relation),
            table,
            reference,
            assigned: assigned_columns(&update.assignments)?,
            deltas: escrow::deltas(update, identifier).columns,
            updates_on_conflict: false,
            uses,
            prefix: 0..start(main),
            head: end(main)..start(set),
            body: end(set)..from.map_or(after_from, start),
            from: from.map(|f| end(f)..after_from),
            condition: condition.map(|c| end(c)..after_condition),
            returning: returning.map(|r| end(r)..self.end()),
            wildcards,
            wildcard_sources,
        })))
    }

    /// The FROM clause of an UPDATE, which is not that of IS DISTINCT FROM.
    fn find_from(&self, set: usize) -> Option<usize> {
        (set + 1..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0 && self.word_at(i, "FROM") && !self.word_at(i - 1, "DISTINCT")
        })
    }

    fn wildcards(&self, returning: usize) -> Vec<usize> {
        (returning + 1..self.tokens.len())
            .filter(|&i| {
                let (token, before) = (&self.tokens[i], &self.tokens[i - 1]);
                token.depth == 0
                    && token.is_symbol('*')
                    && (i == returning + 1 || before.depth == 0 && before.is_symbol(','))
            })
            .map(|i| self.tokens[i].span.start)
            .collect()
    }
}

fn has_alias(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { alias: Some(_), .. })
}

/// What the rows of a FROM clause are called, in order, as `*` shows them.
fn row_sources(from: &[TableWithJoins]) -> Result<Vec<String>, Unsupported> {
    let unclear = || {
        Unsupported::new(
            "RETURNING * over this FROM clause",
            "name the columns that it shall return",
        )
    };
    let mut names = Vec::new();
    for source in from {
        let merges_columns = source.joins.iter().any(|join| {
            matches!(
                &join.join_operator,
                JoinOperator::Join(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::Inner(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::Left(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::LeftOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::Right(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::RightOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
                    | JoinOperator::FullOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
            )
        });
        if merges_columns {
            return Err(unclear());
        }
        for factor in
            std::iter::once(&source.relation).chain(source.joins.iter().map(|join| &join.relation))
        {
            let name = match factor {
                TableFactor::Table {
                    alias: Some(alias), ..
                }
                | TableFactor::Derived {
                    alias: Some(alias), ..
                }
                | TableFactor::Function {
                    alias: Some(alias), ..
                } => identifier(&alias.name),
                TableFactor::Table { name, .. } => table_name(name)?.name,
                _ => return Err(unclear()),
            };
            names.push(quote(&name));
        }
    }
    Ok(names)
}

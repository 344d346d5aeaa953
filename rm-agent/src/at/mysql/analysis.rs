//! SQL text in MariaDB's dialect to [`Analysis`], or a refusal that names the part in
//! the way. As for PostgreSQL, the lexer knows where the clauses stand and the parser
//! what they mean; what one of them does not understand, or what they see
//! differently, is refused.

use std::ops::{ControlFlow, Range};

use sqlparser::{
    ast::{
        Delete, Expr, FromTable, FunctionArguments, GroupByExpr, Ident, Insert, ObjectName, Query,
        Select, SetExpr, Statement, TableFactor, TableObject, TableWithJoins, Update, Visit,
        Visitor,
    },
    dialect::MySqlDialect,
    parser::Parser,
};

use super::{
    functions::is_harmless,
    insert::{InsertParts, insert_parts},
    lexer::tokenize,
    quote,
};
use crate::{
    at::{
        analysis::RESERVED_PREFIX,
        lexer::{Token, TokenKind},
        statement::{TableName, Unsupported, Wait, WriteKind},
    },
    limits,
};

/// What a statement text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Analysis {
    /// Changes and locks nothing: runs untouched.
    Read(Uses),
    /// `SELECT … FOR UPDATE` and its weaker form.
    Locking(Locking),
    /// INSERT, UPDATE or DELETE of one table.
    Write(Box<Write>),
}

/// What a statement names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Tables and views.
    pub(crate) tables: Vec<TableName>,
    /// Functions that are not known to be harmless, in small letters.
    pub(crate) functions: Vec<String>,
}

/// A SELECT that takes row locks in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locking {
    pub(crate) table: TableName,
    /// How the statement refers to the table, quoted.
    pub(crate) reference: String,
    pub(crate) uses: Uses,
    pub(crate) wait: Wait,
    /// Where further output columns go.
    pub(crate) select_list_end: usize,
    pub(crate) end: usize,
}

/// A clause of the user's text and how many parameters it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) span: Range<usize>,
    pub(crate) parameters: usize,
}

/// A write of one table, as pieces of the user's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) kind: WriteKind,
    pub(crate) table: TableName,
    /// How the statement's expressions refer to the table, quoted.
    pub(crate) reference: String,
    /// UPDATE: the columns that it assigns.
    pub(crate) assigned: Vec<String>,
    pub(crate) uses: Uses,
    /// UPDATE, DELETE: the table as the statement names it, with its alias.
    pub(crate) target: Range<usize>,
    /// Everything before the condition, the order or RETURNING.
    pub(crate) head: Clause,
    pub(crate) condition: Option<Clause>,
    pub(crate) order: Option<Clause>,
    pub(crate) limit: Option<Clause>,
    pub(crate) returning: Option<Range<usize>>,
    /// INSERT: rows that meet a unique value are left out.
    pub(crate) ignore: bool,
    pub(crate) insert: Option<InsertParts>,
}

/// Reads a statement text.
pub(crate) fn analyse(sql: &str) -> Result<Analysis, Unsupported> {
    if sql.len() > limits::MAX_SQL_BYTES {
        return Err(Unsupported::new(
            format!("its text of {} bytes", sql.len()),
            format!("keep it below {} bytes", limits::MAX_SQL_BYTES),
        ));
    }
    let mut tokens = tokenize(sql).map_err(|error| {
        Unsupported::new(
            format!("{} in its text", error.0),
            "write it in plain syntax",
        )
    })?;
    while tokens.last().is_some_and(|t| t.is_symbol(';')) {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Ok(Analysis::Read(Uses::default()));
    }
    if tokens.iter().any(|t| t.is_symbol(';')) {
        return Err(Unsupported::new(
            "several statements in one text",
            "send them one by one",
        ));
    }
    Reader { sql, tokens }.read()
}

pub(super) struct Reader<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: Vec<Token>,
}

fn xa(part: impl Into<String>) -> Unsupported {
    Unsupported::new(
        part,
        "use XA mode, or run it outside the global transaction",
    )
}

impl Reader<'_> {
    pub(super) fn word_at(&self, index: usize, word: &str) -> bool {
        self.tokens
            .get(index)
            .is_some_and(|t| t.is_word(self.sql, word))
    }

    fn end(&self) -> usize {
        self.tokens.last().map_or(self.sql.len(), |t| t.span.end)
    }

    /// The first token from `from` on that is this keyword outside all brackets.
    pub(super) fn find(&self, from: usize, word: &str) -> Option<usize> {
        (from..self.tokens.len()).find(|&i| self.tokens[i].depth == 0 && self.word_at(i, word))
    }

    fn clause(&self, span: Range<usize>) -> Clause {
        let inside = |t: &&Token| {
            t.kind == TokenKind::Parameter && span.start <= t.span.start && t.span.end <= span.end
        };
        Clause {
            parameters: self.tokens.iter().filter(inside).count(),
            span,
        }
    }

    fn read(&self) -> Result<Analysis, Unsupported> {
        let first = self.tokens.iter().find(|t| !t.is_symbol('('));
        let word = first.map_or("", |t| &self.sql[t.span.clone()]);
        match word.to_ascii_uppercase().as_str() {
            "SELECT" | "VALUES" | "WITH" => self.query(),
            "INSERT" | "UPDATE" | "DELETE" => self.write(),
            "SHOW" => Ok(Analysis::Read(Uses::default())),
            "EXPLAIN" | "DESCRIBE" | "DESC" => {
                let (_, uses) = self.parse(&self.sql[..self.end()])?;
                Ok(Analysis::Read(uses))
            }
            word => Err(refused_by_name(word)),
        }
    }

    fn parse(&self, text: &str) -> Result<(Statement, Uses), Unsupported> {
        let mut statements = Parser::parse_sql(&MySqlDialect {}, text).map_err(|error| {
            Unsupported::new(
                format!("the parser does not understand it ({error})"),
                "write it in simpler syntax, or use XA mode",
            )
        })?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(self.seen_differently());
        };
        let uses = inspect(&statement)?;
        Ok((statement, uses))
    }

    /// The lock clause at `index`: where it ends and what it does about locks.
    fn lock_clause(&self, index: usize) -> Option<(usize, Wait)> {
        let mut at = if self.word_at(index, "FOR") && self.word_at(index + 1, "UPDATE")
            || self.word_at(index, "FOR") && self.word_at(index + 1, "SHARE")
        {
            index + 2
        } else if self.word_at(index, "LOCK")
            && self.word_at(index + 1, "IN")
            && self.word_at(index + 2, "SHARE")
            && self.word_at(index + 3, "MODE")
        {
            index + 4
        } else {
            return None;
        };
        let mut wait = Wait::Block;
        if self.word_at(at, "NOWAIT") {
            (at, wait) = (at + 1, Wait::Fail);
        } else if self.word_at(at, "SKIP") && self.word_at(at + 1, "LOCKED") {
            (at, wait) = (at + 2, Wait::Skip);
        } else if self.word_at(at, "WAIT") {
            at += 2;
        }
        Some((at, wait))
    }

    fn query(&self) -> Result<Analysis, Unsupported> {
        if self.tokens.iter().any(|t| t.is_word(self.sql, "INTO")) {
            return Err(xa("SELECT … INTO, which writes a file or variables"));
        }
        let lock = (0..self.tokens.len()).find_map(|i| Some((i, self.lock_clause(i)?)));
        let Some((start, (next, wait))) = lock else {
            let (_, uses) = self.parse(&self.sql[..self.end()])?;
            return Ok(Analysis::Read(uses));
        };
        let advice = |part: &str| {
            Unsupported::new(
                part,
                "lock the rows of one plain table in a SELECT of its own",
            )
        };
        if self.tokens[start].depth > 0 || next < self.tokens.len() {
            return Err(advice("a lock clause that does not end the statement"));
        }
        self.no_reserved_names()?;
        let (statement, uses) = self.parse(&self.sql[..self.tokens[start].span.start])?;
        let Statement::Query(query) = &statement else {
            return Err(self.seen_differently());
        };
        let (SetExpr::Select(select), None) = (&*query.body, &query.with) else {
            return Err(advice("a locking read that is no plain SELECT"));
        };
        let [from] = select.from.as_slice() else {
            return Err(advice("a locking read of several tables"));
        };
        if groups(select) {
            return Err(advice("a locking read that groups or aggregates rows"));
        }
        let (table, reference) = single_table(from)?;
        let main = self
            .find(0, "SELECT")
            .ok_or_else(|| self.seen_differently())?;
        let list_end = self
            .find(main, "FROM")
            .ok_or_else(|| self.seen_differently())?;
        Ok(Analysis::Locking(Locking {
            table,
            reference,
            uses,
            wait,
            select_list_end: self.tokens[list_end].span.start,
            end: self.end(),
        }))
    }

    fn write(&self) -> Result<Analysis, Unsupported> {
        self.no_reserved_names()?;
        let returning = self.find(1, "RETURNING");
        let body_end = returning.map_or(self.end(), |r| self.tokens[r].span.start);
        let (statement, mut uses) = self.parse(&self.sql[..body_end])?;
        let returning = returning.map(|r| self.tokens[r].span.end..self.end());
        if let Some(list) = &returning {
            let (_, more) = self.parse(&format!("SELECT {}", &self.sql[list.clone()]))?;
            uses.functions.extend(more.functions);
            uses.tables.extend(more.tables);
        }
        let mut write = match &statement {
            Statement::Insert(insert) => self.insert(insert, body_end)?,
            Statement::Update(update) => self.update(update, body_end)?,
            Statement::Delete(delete) => self.delete(delete, body_end)?,
            _ => return Err(self.seen_differently()),
        };
        write.uses = uses;
        write.returning = returning;
        Ok(Analysis::Write(Box::new(write)))
    }

    fn insert(&self, insert: &Insert, end: usize) -> Result<Write, Unsupported> {
        let place = 1 + usize::from(insert.ignore);
        if !self.word_at(place, "INTO") {
            return Err(Unsupported::new(
                "a word between INSERT and INTO",
                "write INSERT INTO, or INSERT IGNORE INTO",
            ));
        }
        if insert.replace_into {
            return Err(refused_by_name("REPLACE"));
        }
        if insert.on.is_some() || insert.insert_alias.is_some() {
            return Err(Unsupported::new(
                "ON DUPLICATE KEY UPDATE",
                "lock the row by SELECT … FOR UPDATE, then INSERT or UPDATE it",
            ));
        }
        let (TableObject::TableName(name), None, None) =
            (&insert.table, &insert.partitioned, &insert.table_alias)
        else {
            return Err(Unsupported::new(
                "its target, which is no plain table",
                "name one table",
            ));
        };
        let table = table_name(name)?;
        let insert_parts = insert_parts(self, insert, end)?;
        Ok(Write {
            kind: WriteKind::Insert,
            reference: quote(&table.name),
            table,
            assigned: Vec::new(),
            uses: Uses::default(),
            target: 0..0,
            head: self.clause(0..end),
            condition: None,
            order: None,
            limit: None,
            returning: None,
            ignore: insert.ignore,
            insert: Some(insert_parts),
        })
    }

    fn update(&self, update: &Update, end: usize) -> Result<Write, Unsupported> {
        let modifier = ["IGNORE", "LOW_PRIORITY"]
            .into_iter()
            .find(|word| self.word_at(1, word));
        if let Some(word) = modifier {
            return Err(Unsupported::new(
                format!("UPDATE {word}"),
                "leave the word out",
            ));
        }
        let set = self.find(1, "SET").ok_or_else(|| self.seen_differently())?;
        if update.from.is_some() || self.find(1, "PORTION").is_some_and(|found| found < set) {
            return Err(xa("an UPDATE of parts of a period, or with FROM"));
        }
        let (table, reference) = single_table(&update.table)?;
        let mut write = self.change(
            WriteKind::Update,
            (set, end),
            [
                update.selection.is_some(),
                !update.order_by.is_empty(),
                update.limit.is_some(),
            ],
        )?;
        write.table = table;
        write.reference = reference;
        write.target = self.tokens[1].span.start..self.tokens[set].span.start;
        write.assigned = crate::at::analysis::assigned_names(&update.assignments, ident)?;
        Ok(write)
    }

    fn delete(&self, delete: &Delete, end: usize) -> Result<Write, Unsupported> {
        let one = || Unsupported::new("DELETE from several tables", "delete from one at a time");
        let FromTable::WithFromKeyword(from) = &delete.from else {
            return Err(one());
        };
        if !self.word_at(1, "FROM") {
            return Err(Unsupported::new(
                "a word between DELETE and FROM",
                "write DELETE FROM table",
            ));
        }
        let ([from], true, true) = (
            from.as_slice(),
            delete.using.is_none(),
            delete.tables.is_empty(),
        ) else {
            return Err(one());
        };
        let (table, reference) = single_table(from)?;
        if reference != quote(&table.name) {
            return Err(Unsupported::new(
                "an alias of the table that DELETE names",
                "leave it out",
            ));
        }
        let mut write = self.change(
            WriteKind::Delete,
            (2, end),
            [
                delete.selection.is_some(),
                !delete.order_by.is_empty(),
                delete.limit.is_some(),
            ],
        )?;
        write.target = self.tokens[2].span.start..write.head.span.end;
        write.table = table;
        write.reference = reference;
        Ok(write)
    }

    /// The clauses of an UPDATE or DELETE, of which the parser has seen those in `seen`.
    fn change(
        &self,
        kind: WriteKind,
        (from, end): (usize, usize),
        seen: [bool; 3],
    ) -> Result<Write, Unsupported> {
        let before_end = |index: Option<usize>| index.filter(|&i| self.tokens[i].span.start < end);
        let condition = before_end(self.find(from, "WHERE"));
        let order = (from..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0 && self.word_at(i, "ORDER") && self.word_at(i + 1, "BY")
        });
        let order = before_end(order);
        let limit = before_end(self.find(from, "LIMIT"));
        let clauses = [condition, order, limit];
        if clauses.map(|clause| clause.is_some()) != seen || !clauses.iter().flatten().is_sorted() {
            return Err(self.seen_differently());
        }
        let start = |index: usize| self.tokens[index].span.start;
        let after_order = limit.map_or(end, start);
        let after_condition = order.map_or(after_order, start);
        let head_end = condition.map_or(after_condition, start);
        let clause = |word: Option<usize>, skip: usize, end: usize| {
            word.map(|word| self.clause(self.tokens[word + skip].span.end..end))
        };
        Ok(Write {
            kind,
            table: TableName {
                schema: None,
                name: String::new(),
            },
            reference: String::new(),
            assigned: Vec::new(),
            uses: Uses::default(),
            target: 0..0,
            head: self.clause(0..head_end),
            condition: clause(condition, 0, after_condition),
            order: clause(order, 1, after_order),
            limit: clause(limit, 0, end),
            returning: None,
            ignore: false,
            insert: None,
        })
    }

    fn no_reserved_names(&self) -> Result<(), Unsupported> {
        let reserved = self.tokens.iter().find(|t| {
            let text = self.sql[t.span.clone()].trim_start_matches('`');
            matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdentifier)
                && text
                    .get(..RESERVED_PREFIX.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
        });
        match reserved {
            Some(token) => Err(Unsupported::new(
                format!("the name {}", &self.sql[token.span.clone()]),
                format!("names that start with {RESERVED_PREFIX} are reserved; choose another"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn seen_differently(&self) -> Unsupported {
        Unsupported::new(
            "its clauses cannot be told apart",
            "put sub-expressions into brackets, or use XA mode",
        )
    }
}

fn refused_by_name(word: &str) -> Unsupported {
    match word {
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => Unsupported::new(
            format!("{word}: the local transaction belongs to AtTransaction"),
            "use its commit and rollback",
        ),
        "REPLACE" => Unsupported::new(
            "REPLACE, which deletes rows that it meets",
            "use DELETE and INSERT",
        ),
        "TRUNCATE" => Unsupported::new(
            "TRUNCATE, which keeps no old rows and commits",
            "use DELETE FROM the table",
        ),
        "SET" | "USE" => Unsupported::new(
            format!("{word}, which changes the session"),
            "set variables in the connection options of the pool",
        ),
        "LOCK" | "UNLOCK" => Unsupported::new(
            format!("{word} TABLES, which commits"),
            "lock rows by SELECT … FOR UPDATE",
        ),
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => Unsupported::new(
            format!("{word}, which hides the statement"),
            "send the statement itself; it is prepared and kept anyway",
        ),
        "LOAD" => Unsupported::new("LOAD DATA", "use INSERT with several rows"),
        "CREATE" | "ALTER" | "DROP" | "RENAME" => Unsupported::new(
            format!("{word}, which commits the local transaction"),
            "change the schema outside global transactions",
        ),
        _ => xa(format!("{word}, whose effects cannot be undone")),
    }
}

/// A name as the catalog stores it.
pub(super) fn ident(ident: &Ident) -> String {
    ident.value.clone()
}

fn table_name(name: &ObjectName) -> Result<TableName, Unsupported> {
    let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    match parts.as_deref() {
        Some([name]) => Ok(TableName {
            schema: None,
            name: ident(name),
        }),
        Some([schema, name]) => Ok(TableName {
            schema: Some(ident(schema)),
            name: ident(name),
        }),
        _ => Err(Unsupported::new(
            format!("the table name {name}"),
            "name it as table or database.table",
        )),
    }
}

/// The one plain table of a FROM clause, and how the statement refers to it.
fn single_table(from: &TableWithJoins) -> Result<(TableName, String), Unsupported> {
    let several = || {
        Unsupported::new(
            "its target, which is no single plain table",
            "name one table, with an alias at most; read other tables in sub-queries",
        )
    };
    let TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = &from.relation
    else {
        return Err(several());
    };
    let plain = with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty();
    if !plain || !from.joins.is_empty() {
        return Err(several());
    }
    let table = table_name(name)?;
    let reference = match alias {
        Some(alias) if alias.columns.is_empty() => ident(&alias.name),
        Some(_) => return Err(several()),
        None => table.name.clone(),
    };
    Ok((table, quote(&reference)))
}

const AGGREGATES: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "count",
    "group_concat",
    "json_arrayagg",
    "json_objectagg",
    "max",
    "min",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// Whether its rows are no rows of the table.
fn groups(select: &Select) -> bool {
    struct Aggregates;
    impl Visitor for Aggregates {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if function.over.is_none() => {
                    let name = function.name.to_string().to_ascii_lowercase();
                    if AGGREGATES.contains(&name.as_str()) {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(list, _) => !list.is_empty(),
    };
    grouped
        || select.distinct.is_some()
        || select.having.is_some()
        || select.projection.visit(&mut Aggregates).is_break()
}

/// Looks through a statement. Returns what it names.
fn inspect(statement: &Statement) -> Result<Uses, Unsupported> {
    let mut finder = Finder::default();
    match statement.visit(&mut finder) {
        ControlFlow::Break(unsupported) => Err(unsupported),
        ControlFlow::Continue(()) => Ok(finder.uses),
    }
}

#[derive(Default)]
struct Finder {
    uses: Uses,
}

impl Visitor for Finder {
    type Break = Unsupported;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Unsupported> {
        match *query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break(xa("a write inside a WITH clause or sub-query"))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Unsupported> {
        match table_name(name) {
            Ok(name) => {
                if !self.uses.tables.contains(&name) {
                    self.uses.tables.push(name);
                }
                ControlFlow::Continue(())
            }
            Err(unsupported) => ControlFlow::Break(unsupported),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Unsupported> {
        if let Expr::Function(function) = expr {
            let has_arguments = match &function.args {
                FunctionArguments::None => false,
                FunctionArguments::Subquery(_) => true,
                FunctionArguments::List(list) => !list.args.is_empty(),
            };
            let name = match function.name.0.as_slice() {
                [part] => part.as_ident().map(ident),
                _ => None,
            };
            let name = name.unwrap_or_else(|| function.name.to_string());
            let name = name.to_ascii_lowercase();
            if !is_harmless(&name, has_arguments) && !self.uses.functions.contains(&name) {
                self.uses.functions.push(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Unsupported> {
        match factor {
            TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. } => {
                ControlFlow::Break(xa("a function in place of a table"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;

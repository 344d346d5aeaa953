//! What hides inside a statement: function calls, nested writes, `INTO`.

use std::{collections::BTreeSet, ops::ControlFlow};

use sqlparser::ast::{
    AccessExpr, Expr, ObjectName, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
};

use super::{
    analysis::{identifier, table_name},
    statement::{TableName, Unsupported, Uses},
};

/// Built-in functions that write, send or change the session beyond what an
/// undo record can bring back.
const WRITING_BUILT_INS: &[&str] = &[
    "set_config",
    "setval",
    "pg_notify",
    "pg_logical_emit_message",
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "loread",
    "lowrite",
];

/// Looks through a statement. Returns what it names.
pub(crate) fn inspect(statement: &Statement) -> Result<Uses, Unsupported> {
    let mut finder = Finder {
        write_query_allowed: matches!(statement, Statement::Query(_)),
        ..Finder::default()
    };
    match statement.visit(&mut finder) {
        ControlFlow::Break(unsupported) => Err(unsupported),
        ControlFlow::Continue(()) => Ok(Uses {
            functions: finder.functions.into_iter().collect(),
            attributes: finder.attributes.into_iter().collect(),
            tables: finder.tables.into_iter().collect(),
        }),
    }
}

#[derive(Default)]
struct Finder {
    functions: BTreeSet<String>,
    attributes: BTreeSet<String>,
    tables: BTreeSet<TableName>,
    /// True until the first query was seen: `WITH … UPDATE` is a query whose
    /// body is the write that the caller looks at.
    write_query_allowed: bool,
}

impl Finder {
    fn function(&mut self, name: &ObjectName) -> ControlFlow<Unsupported> {
        let Some(last) = name.0.last().and_then(|part| part.as_ident()) else {
            return ControlFlow::Break(Unsupported::new(
                format!("the function name {name}"),
                "call the function by its plain name",
            ));
        };
        let function = identifier(last);
        if WRITING_BUILT_INS.contains(&function.as_str()) || function.starts_with("lo_") {
            return ControlFlow::Break(Unsupported::new(
                format!("the function {function} has effects that cannot be undone"),
                "call it outside the global transaction, or use XA mode",
            ));
        }
        self.functions.insert(function);
        ControlFlow::Continue(())
    }
}

impl Visitor for Finder {
    type Break = Unsupported;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Unsupported> {
        let writes = matches!(
            *query.body,
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
        );
        let allowed = std::mem::take(&mut self.write_query_allowed);
        if writes && !allowed {
            return ControlFlow::Break(Unsupported::new(
                "a write inside a WITH clause or sub-query",
                "run it as a statement of its own, or use XA mode",
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Unsupported> {
        match table_name(name) {
            Ok(name) => {
                self.tables.insert(name);
                ControlFlow::Continue(())
            }
            Err(unsupported) => ControlFlow::Break(unsupported),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Unsupported> {
        if select.into.is_some() {
            return ControlFlow::Break(Unsupported::new(
                "SELECT … INTO, which creates a table",
                "create the table outside the global transaction and use INSERT … SELECT",
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Unsupported> {
        match expr {
            Expr::Function(function) => self.function(&function.name),
            Expr::CompoundIdentifier(parts) => {
                self.attributes.extend(parts.last().map(identifier));
                ControlFlow::Continue(())
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(name)) = access {
                        self.attributes.insert(identifier(name));
                    }
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Unsupported> {
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => self.function(name),
            _ => ControlFlow::Continue(()),
        }
    }
}

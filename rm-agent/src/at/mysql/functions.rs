//! What hides inside a statement: function calls, nested writes, aggregates.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, ObjectName, Query, Select, SetExpr, Statement,
    TableFactor, Visit, Visitor,
};

use super::{
    analysis::{ident, table_name},
    statement::{Uses, xa},
};
use crate::at::statement::Unsupported;

/// Built-in functions that neither write nor lock. Whatever is not here may be a
/// stored or loadable function.
const HARMLESS: &[&str] = &[
    "abs",
    "acos",
    "adddate",
    "addtime",
    "aes_decrypt",
    "aes_encrypt",
    "ascii",
    "asin",
    "atan",
    "atan2",
    "avg",
    "bin",
    "bit_and",
    "bit_count",
    "bit_length",
    "bit_or",
    "bit_xor",
    "cast",
    "ceil",
    "ceiling",
    "char",
    "char_length",
    "character_length",
    "chr",
    "coalesce",
    "coercibility",
    "collation",
    "concat",
    "concat_ws",
    "connection_id",
    "conv",
    "convert",
    "convert_tz",
    "cos",
    "cot",
    "count",
    "crc32",
    "crc32c",
    "cume_dist",
    "curdate",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "curtime",
    "database",
    "date",
    "date_add",
    "date_format",
    "date_sub",
    "datediff",
    "day",
    "dayname",
    "dayofmonth",
    "dayofweek",
    "dayofyear",
    "default",
    "degrees",
    "dense_rank",
    "elt",
    "exp",
    "export_set",
    "extract",
    "extractvalue",
    "field",
    "find_in_set",
    "first_value",
    "floor",
    "format",
    "found_rows",
    "from_base64",
    "from_days",
    "from_unixtime",
    "greatest",
    "group_concat",
    "hex",
    "hour",
    "if",
    "ifnull",
    "inet_aton",
    "inet_ntoa",
    "inet6_aton",
    "inet6_ntoa",
    "insert",
    "instr",
    "interval",
    "isnull",
    "json_array",
    "json_array_append",
    "json_array_insert",
    "json_arrayagg",
    "json_compact",
    "json_contains",
    "json_contains_path",
    "json_depth",
    "json_detailed",
    "json_equals",
    "json_exists",
    "json_extract",
    "json_insert",
    "json_keys",
    "json_length",
    "json_loose",
    "json_merge",
    "json_merge_patch",
    "json_merge_preserve",
    "json_normalize",
    "json_object",
    "json_objectagg",
    "json_overlaps",
    "json_pretty",
    "json_query",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_search",
    "json_set",
    "json_type",
    "json_unquote",
    "json_valid",
    "json_value",
    "lag",
    "last_day",
    "lastval",
    "last_value",
    "lcase",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "localtime",
    "localtimestamp",
    "locate",
    "log",
    "log10",
    "log2",
    "lower",
    "lpad",
    "ltrim",
    "make_set",
    "makedate",
    "maketime",
    "max",
    "md5",
    "median",
    "microsecond",
    "mid",
    "min",
    "minute",
    "mod",
    "month",
    "monthname",
    "natural_sort_key",
    "nextval",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "nvl",
    "nvl2",
    "oct",
    "octet_length",
    "ord",
    "percent_rank",
    "period_add",
    "period_diff",
    "pi",
    "point",
    "position",
    "pow",
    "power",
    "quarter",
    "quote",
    "radians",
    "rand",
    "rank",
    "regexp_instr",
    "regexp_replace",
    "regexp_substr",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_count",
    "row_number",
    "rpad",
    "rtrim",
    "schema",
    "sec_to_time",
    "second",
    "session_user",
    "sformat",
    "sha",
    "sha1",
    "sha2",
    "sign",
    "sin",
    "soundex",
    "space",
    "sqrt",
    "st_astext",
    "st_aswkb",
    "st_distance",
    "st_geomfromtext",
    "st_pointfromtext",
    "st_within",
    "st_x",
    "st_y",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "str_to_date",
    "strcmp",
    "subdate",
    "substr",
    "substring",
    "substring_index",
    "subtime",
    "sum",
    "sys_guid",
    "sysdate",
    "system_user",
    "tan",
    "time",
    "time_format",
    "time_to_sec",
    "timediff",
    "timestamp",
    "timestampadd",
    "timestampdiff",
    "to_base64",
    "to_char",
    "to_days",
    "to_seconds",
    "trim",
    "truncate",
    "ucase",
    "uncompress",
    "compress",
    "unhex",
    "unix_timestamp",
    "upper",
    "user",
    "utc_date",
    "utc_time",
    "utc_timestamp",
    "uuid",
    "uuid_short",
    "value",
    "values",
    "var_pop",
    "var_samp",
    "variance",
    "version",
    "week",
    "weekday",
    "weekofyear",
    "weight_string",
    "year",
    "yearweek",
];

/// Whether this function, by its name in small letters, is known to be harmless.
/// `LAST_INSERT_ID` is when it has no argument.
pub(crate) fn is_harmless(name: &str, has_arguments: bool) -> bool {
    HARMLESS.contains(&name) || name == "last_insert_id" && !has_arguments
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
pub(super) fn groups(select: &Select) -> bool {
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
pub(super) fn inspect(statement: &Statement) -> Result<Uses, Unsupported> {
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

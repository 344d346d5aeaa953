//! The attribute's arguments.

use proc_macro2::Span;
use syn::{
    Error, Expr, Ident, LitStr, Token,
    parse::{Parse, ParseStream},
};

use crate::duration::milliseconds;

const KEYS: &str = "`client`, `name`, `timeout`, `propagation`, `rollback_on`, `commit_on`";

const PROPAGATIONS: [(&str, &str); 6] = [
    ("required", "Required"),
    ("requires_new", "RequiresNew"),
    ("supports", "Supports"),
    ("not_supported", "NotSupported"),
    ("mandatory", "Mandatory"),
    ("never", "Never"),
];

/// What stands in the parentheses, checked.
pub(crate) struct Arguments {
    pub(crate) client: Expr,
    pub(crate) name: Option<LitStr>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) propagation: Ident,
    pub(crate) rule: Rule,
}

/// Which errors roll back.
pub(crate) enum Rule {
    All,
    RollBackOn(Expr),
    CommitOn(Expr),
}

#[derive(Default)]
struct Found {
    client: Option<Expr>,
    name: Option<LitStr>,
    timeout_ms: Option<u64>,
    propagation: Option<Ident>,
    rollback_on: Option<Expr>,
    commit_on: Option<(Span, Expr)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut found = Found::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input
                .parse::<Token![=]>()
                .map_err(|_| Error::new(key.span(), format!("expected `{key} = …`")))?;
            found.read(&key, input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        found.check()
    }
}

impl Found {
    fn read(&mut self, key: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match key.to_string().as_str() {
            "client" => put(&mut self.client, key, input.parse()?),
            "name" => put(&mut self.name, key, name(input)?),
            "timeout" => put(&mut self.timeout_ms, key, timeout(input)?),
            "propagation" => put(&mut self.propagation, key, propagation(input)?),
            "rollback_on" => put(&mut self.rollback_on, key, input.parse()?),
            "commit_on" => put(&mut self.commit_on, key, (key.span(), input.parse()?)),
            _ => Err(Error::new(
                key.span(),
                format!("unknown key `{key}`, expected one of {KEYS}"),
            )),
        }
    }

    fn check(self) -> syn::Result<Arguments> {
        let client = self.client.ok_or_else(|| {
            Error::new(
                Span::call_site(),
                "which client? add `client = …`, an expression for the `TransactionClient`, for \
                 example `client = self.transactions`",
            )
        })?;
        let rule = match (self.rollback_on, self.commit_on) {
            (Some(_), Some((span, _))) => {
                return Err(Error::new(
                    span,
                    "`rollback_on` and `commit_on` say the same thing from two sides, use one",
                ));
            }
            (Some(expr), None) => Rule::RollBackOn(expr),
            (None, Some((_, expr))) => Rule::CommitOn(expr),
            (None, None) => Rule::All,
        };
        Ok(Arguments {
            client,
            name: self.name,
            timeout_ms: self.timeout_ms,
            propagation: self
                .propagation
                .unwrap_or_else(|| Ident::new("Required", Span::call_site())),
            rule,
        })
    }
}

fn put<T>(place: &mut Option<T>, key: &Ident, value: T) -> syn::Result<()> {
    if place.is_some() {
        return Err(Error::new(key.span(), format!("`{key}` is given twice")));
    }
    *place = Some(value);
    Ok(())
}

fn text(input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    input
        .parse()
        .map_err(|error| Error::new(error.span(), format!("expected a text, like {example}")))
}

fn name(input: ParseStream<'_>) -> syn::Result<LitStr> {
    let name = text(input, "\"place-order\"")?;
    let length = name.value().len();
    if length == 0 || length > 128 || name.value().chars().any(char::is_control) {
        return Err(Error::new(
            name.span(),
            "a name has 1 to 128 bytes and no control characters",
        ));
    }
    Ok(name)
}

fn timeout(input: ParseStream<'_>) -> syn::Result<u64> {
    let timeout = text(input, "\"30s\"")?;
    milliseconds(&timeout.value()).map_err(|problem| Error::new(timeout.span(), problem))
}

fn propagation(input: ParseStream<'_>) -> syn::Result<Ident> {
    let given = text(input, "\"required\"")?;
    let found = PROPAGATIONS.iter().find(|(key, _)| *key == given.value());
    let (_, variant) = found.ok_or_else(|| {
        let keys = PROPAGATIONS.map(|(key, _)| format!("\"{key}\"")).join(", ");
        Error::new(
            given.span(),
            format!("unknown propagation, expected one of {keys}"),
        )
    })?;
    Ok(Ident::new(variant, given.span()))
}

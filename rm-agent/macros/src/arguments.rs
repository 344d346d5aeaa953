//! The attribute's arguments.

use proc_macro2::Span;
use syn::{
    Error, Ident, LitStr, Token,
    parse::{Parse, ParseStream},
};

const KEYS: &str = "`resource`, `confirm`, `cancel`";

/// What stands in the parentheses, checked.
pub(crate) struct Arguments {
    pub(crate) resource: LitStr,
    pub(crate) confirm: Ident,
    pub(crate) cancel: Ident,
}

#[derive(Default)]
struct Found {
    resource: Option<LitStr>,
    confirm: Option<Ident>,
    cancel: Option<Ident>,
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
            "resource" => put(&mut self.resource, key, resource(input)?),
            "confirm" => put(&mut self.confirm, key, method(input, "confirm = settle")?),
            "cancel" => put(&mut self.cancel, key, method(input, "cancel = release")?),
            _ => Err(Error::new(
                key.span(),
                format!("unknown key `{key}`, expected one of {KEYS}"),
            )),
        }
    }

    fn check(self) -> syn::Result<Arguments> {
        let missing = |what: &str| Error::new(Span::call_site(), what);
        Ok(Arguments {
            resource: self.resource.ok_or_else(|| {
                missing("which action? add `resource = \"…\"`, for example `resource = \"account.freeze\"`")
            })?,
            confirm: self.confirm.ok_or_else(|| {
                missing("what confirms it? add `confirm = …` with the name of a method")
            })?,
            cancel: self.cancel.ok_or_else(|| {
                missing("what cancels it? add `cancel = …` with the name of a method")
            })?,
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

fn resource(input: ParseStream<'_>) -> syn::Result<LitStr> {
    let name: LitStr = input
        .parse()
        .map_err(|error| Error::new(error.span(), "expected a text, like \"account.freeze\""))?;
    let length = name.value().len();
    if length == 0 || length > 128 || name.value().chars().any(char::is_control) {
        return Err(Error::new(
            name.span(),
            "a name has 1 to 128 bytes and no control characters",
        ));
    }
    Ok(name)
}

fn method(input: ParseStream<'_>, example: &str) -> syn::Result<Ident> {
    input.parse().map_err(|error| {
        let text = format!("expected the name of a method of the same service, like `{example}`");
        Error::new(error.span(), text)
    })
}

//! An attribute's arguments: the action's name, and the names of methods.

use proc_macro2::{Span, TokenStream};
use syn::{
    Error, Ident, LitStr, Token,
    parse::{ParseStream, Parser as _},
};

/// A key that names a method.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) example: &'static str,
    /// What is asked when it is missing; `None`: it may be.
    pub(crate) missing: Option<&'static str>,
}

/// What stands in the parentheses, checked.
pub(crate) struct Arguments<const N: usize> {
    pub(crate) resource: LitStr,
    /// In the order of the keys; `None` only where a key may be missing.
    pub(crate) methods: [Option<Ident>; N],
}

/// Reads the arguments of an attribute with these keys beside `resource`.
pub(crate) fn read<const N: usize>(
    tokens: TokenStream,
    keys: &[Key; N],
) -> syn::Result<Arguments<N>> {
    (|input: ParseStream<'_>| parse(input, keys)).parse2(tokens)
}

fn parse<const N: usize>(input: ParseStream<'_>, keys: &[Key; N]) -> syn::Result<Arguments<N>> {
    let mut name: Option<LitStr> = None;
    let mut methods: [Option<Ident>; N] = [const { None }; N];
    while !input.is_empty() {
        let key: Ident = input.parse()?;
        input
            .parse::<Token![=]>()
            .map_err(|_| Error::new(key.span(), format!("expected `{key} = …`")))?;
        if key == "resource" {
            put(&mut name, &key, resource(input)?)?;
        } else if let Some(place) = keys.iter().position(|known| key == known.name) {
            put(
                &mut methods[place],
                &key,
                method(input, keys[place].example)?,
            )?;
        } else {
            let known: Vec<String> = ["resource"]
                .into_iter()
                .chain(keys.iter().map(|known| known.name))
                .map(|known| format!("`{known}`"))
                .collect();
            let known = known.join(", ");
            let text = format!("unknown key `{key}`, expected one of {known}");
            return Err(Error::new(key.span(), text));
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    let missing = |what: &str| Error::new(Span::call_site(), what);
    let resource = name.ok_or_else(|| {
        missing("which action? add `resource = \"…\"`, for example `resource = \"account.freeze\"`")
    })?;
    for (key, method) in keys.iter().zip(&methods) {
        if let (Some(question), None) = (key.missing, method) {
            let name = key.name;
            let text = format!("{question} add `{name} = …` with the name of a method");
            return Err(missing(&text));
        }
    }
    Ok(Arguments { resource, methods })
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

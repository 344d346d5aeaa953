//! Wraps a function's body into a call of the client library.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, ItemFn, LitStr, ReturnType, Type,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::arguments::{Arguments, Rule};

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let text = "`#[global_transaction]` goes on an async function or method with a body";
            // The item itself stays, so that the compiler's own words about it stay too.
            let error = Error::new(error.span(), text).to_compile_error();
            return quote! { #error #item };
        }
    };
    match check(&function).and_then(|()| syn::parse2::<Arguments>(arguments)) {
        Ok(arguments) => wrap(&arguments, &function),
        Err(error) => {
            let error = error.to_compile_error();
            // Without the attribute the function still exists for its callers.
            quote! { #error #function }
        }
    }
}

fn check(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(constness) = &signature.constness {
        return Err(Error::new(
            constness.span(),
            "a transaction talks to a coordinator, so the function cannot be const",
        ));
    }
    if signature.asyncness.is_none() {
        return Err(Error::new(
            signature.fn_token.span(),
            "a transaction needs an async function (methods in an `#[async_trait]` block are not \
             async any more: call an annotated method from there)",
        ));
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(Error::new(
            signature.ident.span(),
            "the function must return a `Result`: `Ok` commits, `Err` rolls back",
        ));
    }
    Ok(())
}

fn wrap(arguments: &Arguments, function: &ItemFn) -> TokenStream {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = function;
    let client = &arguments.client;
    // Errors show at the expression, lints see that the borrow is not the user's.
    let here = Span::mixed_site().located_at(client.span());
    let clone = quote_spanned! {here=>
        ::accede_tm_client::__macros::client(&#client)
    };
    let name = arguments.name.clone().unwrap_or_else(|| {
        LitStr::new(
            sig.ident.to_string().trim_start_matches("r#"),
            sig.ident.span(),
        )
    });
    let timeout = arguments.timeout_ms.map(|ms| {
        quote! { .timeout(::core::time::Duration::from_millis(#ms)) }
    });
    let propagation = &arguments.propagation;
    let returned = returned(&sig.output);
    // Errors about the return type show there.
    let span = returned.span();
    let (run, rule) = match &arguments.rule {
        Rule::All => (quote_spanned! {span=> run }, None),
        Rule::RollBackOn(rule) => (quote_spanned! {span=> run_rolling_back_on }, Some(rule)),
        Rule::CommitOn(rule) => (quote_spanned! {span=> run_committing_on }, Some(rule)),
    };
    let run = quote_spanned! {span=> ::accede_tm_client::__macros::#run };
    let rule = rule.map(|rule| quote! { #rule, });
    let kind = quote_spanned! {span=> ::core::marker::PhantomData::<#returned> };
    let work = work(&returned, &block.stmts);
    let call = parenthesized(
        span,
        quote! {
            &__accede_client,
            ::accede_tm_client::Options::new(#name) #timeout,
            ::accede_tm_client::Propagation::#propagation,
            #kind,
            #rule
            #work
        },
    );
    quote! {
        #(#attrs)*
        #vis #sig {
            let __accede_client = #clone;
            #run #call.await
        }
    }
}

/// The compiler marks a call from its function to its last parenthesis, so that
/// one needs the span too.
fn parenthesized(span: Span, content: TokenStream) -> Group {
    let mut group = Group::new(Delimiter::Parenthesis, content);
    group.set_span(span);
    group
}

/// The body as a future. The dead branch tells the compiler its type before it
/// meets the first `?`.
fn work(returned: &Type, statements: &[syn::Stmt]) -> TokenStream {
    quote! {
        async move {
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_with_type_underscore,
                clippy::needless_return
            )]
            if false {
                let __accede_returned: #returned = loop {};
                return __accede_returned;
            }
            #(#statements)*
        }
    }
}

fn returned(output: &ReturnType) -> Type {
    let mut returned = match output {
        ReturnType::Type(_, returned) => (**returned).clone(),
        ReturnType::Default => Type::Verbatim(quote! { () }),
    };
    ImplToInferred.visit_type_mut(&mut returned);
    returned
}

/// `impl Trait` cannot stand in a `let`; the compiler infers what it is.
struct ImplToInferred;

impl VisitMut for ImplToInferred {
    fn visit_type_mut(&mut self, found: &mut Type) {
        if matches!(found, Type::ImplTrait(_)) {
            *found = Type::Verbatim(quote_spanned! {found.span()=> _ });
        } else {
            visit_mut::visit_type_mut(self, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: TokenStream, item: &TokenStream) -> String {
        expand(arguments, item).to_string()
    }

    #[test]
    fn the_body_becomes_an_argument() {
        let text = expanded(
            quote! { client = self.tx, timeout = "30s", propagation = "requires_new" },
            &quote! { pub async fn go(self) -> Result<impl Send, E> { work().await } },
        );
        for part in [
            "client (& self . tx)",
            "Options :: new (\"go\")",
            "from_millis (30000u64)",
            "Propagation :: RequiresNew",
            "Result < _ , E >",
            "async move",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }

    #[test]
    fn a_refused_function_stays() {
        let text = expanded(
            quote! {},
            &quote! { async fn go() -> Result<(), E> { Ok(()) } },
        );
        assert!(text.contains("which client?"), "{text}");
        assert!(text.contains("async fn go ()"), "{text}");
        let text = expanded(quote! { client = c }, &quote! { struct S; });
        assert!(text.contains("goes on an async function"), "{text}");
    }
}

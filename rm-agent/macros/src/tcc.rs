//! Writes the function that makes an action of a method.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, FnArg, ItemFn, ReceiverKind, ReturnType, Signature, Type, spanned::Spanned as _};

use crate::arguments::Arguments;

/// What is read from the method's signature.
struct Try {
    transaction: Type,
    arguments: Type,
    output: Type,
}

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let method = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(method) => method,
        Err(error) => {
            let text = "`#[tcc]` goes on an async method with a body";
            // The item itself stays, so that the compiler's own words about it stay too.
            let error = Error::new(error.span(), text).to_compile_error();
            return quote! { #error #item };
        }
    };
    let read =
        read(&method.sig).and_then(|found| Ok((found, syn::parse2::<Arguments>(arguments)?)));
    match read {
        Ok((found, arguments)) => {
            let action = action(&arguments, &found, &method);
            quote! { #method #action }
        }
        Err(error) => {
            let error = error.to_compile_error();
            // Without the attribute the method still exists for its callers.
            quote! { #error #method }
        }
    }
}

fn read(signature: &Signature) -> syn::Result<Try> {
    let wrong = |span, text: &str| Err(Error::new(span, text));
    if signature.asyncness.is_none() {
        let text = "a try works in a database, so the method must be async";
        return wrong(signature.fn_token.span(), text);
    }
    if !signature.generics.params.is_empty() {
        let text = "an action has one name, so its try cannot be generic";
        return wrong(signature.generics.span(), text);
    }
    let shape = "the method must take `&self`, the transaction (`tx: &mut FencedTransaction`) and \
                 the arguments by value";
    let inputs: Vec<&FnArg> = signature.inputs.iter().collect();
    let [
        FnArg::Receiver(receiver),
        FnArg::Typed(tx),
        FnArg::Typed(arguments),
    ] = inputs[..]
    else {
        return wrong(signature.ident.span(), shape);
    };
    if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
        return wrong(receiver.span(), shape);
    }
    let transaction = match &*tx.ty {
        Type::Reference(reference) if reference.mutability.is_some() => (*reference.elem).clone(),
        other => return wrong(other.span(), shape),
    };
    if let Type::Reference(reference) = &*arguments.ty {
        return wrong(reference.span(), shape);
    }
    let ReturnType::Type(_, output) = &signature.output else {
        let text = "the method must return a `Result`: on `Err` nothing has taken effect";
        return wrong(signature.ident.span(), text);
    };
    Ok(Try {
        transaction,
        arguments: (*arguments.ty).clone(),
        output: (**output).clone(),
    })
}

fn action(arguments: &Arguments, found: &Try, method: &ItemFn) -> TokenStream {
    let Arguments {
        resource,
        confirm,
        cancel,
    } = arguments;
    let Try {
        transaction,
        arguments,
        output,
    } = found;
    let (try_it, visibility) = (&method.sig.ident, &method.vis);
    let name = format_ident!("{}_tcc", try_it, span = try_it.span());
    let about = format!(
        "The action `{}`: tried by [`{try_it}`](Self::{try_it}), then confirmed by \
         [`{confirm}`](Self::{confirm}) or cancelled by [`{cancel}`](Self::{cancel}). To be given \
         to the agent's builder, and called.",
        resource.value()
    );
    let ended = |handler: &syn::Ident| {
        // Errors show at the name in the attribute.
        quote_spanned! {handler.span()=>
            |service, tx, arguments| ::std::boxed::Box::pin(async move {
                ::accede_rm_agent::tcc::__macros::ended(
                    Self::#handler(service, tx, arguments).await,
                )
            })
        }
    };
    let (confirm, cancel) = (ended(confirm), ended(cancel));
    let side = |side: TokenStream| {
        quote! { <#output as ::accede_rm_agent::tcc::__macros::Outcome>::#side }
    };
    let (error, output) = (side(quote! { Error }), side(quote! { Output }));
    quote! {
        #[doc = #about]
        #visibility fn #name(
            service: &::std::sync::Arc<Self>,
        ) -> ::accede_rm_agent::tcc::Tcc<#arguments, #error, #output> {
            let handlers: ::accede_rm_agent::tcc::TccHandlers<
                Self, #transaction, #arguments, #error, #output,
            > = ::accede_rm_agent::tcc::TccHandlers {
                resource: #resource,
                try_it: |service, tx, arguments| ::std::boxed::Box::pin(
                    Self::#try_it(service, tx, arguments)
                ),
                confirm: #confirm,
                cancel: #cancel,
            };
            ::accede_rm_agent::tcc::Tcc::of_service(service, handlers)
        }
    }
}

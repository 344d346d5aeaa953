//! The method that an attribute stands on: phase one of an action.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Error, FnArg, Ident, ItemFn, ReceiverKind, ReturnType, Signature, Type, spanned::Spanned as _,
};

/// What is read from the method's signature.
pub(crate) struct PhaseOne {
    pub(crate) transaction: Type,
    pub(crate) arguments: Type,
    pub(crate) output: Type,
}

impl PhaseOne {
    /// The error and the output of the `Result` that the method returns.
    pub(crate) fn sides(&self) -> (TokenStream, TokenStream) {
        let result = &self.output;
        let side = |side: TokenStream| {
            quote! { <#result as ::accede_rm_agent::tcc::__macros::Outcome>::#side }
        };
        (side(quote! { Error }), side(quote! { Output }))
    }
}

/// What an attribute asks of the method that it stands on.
pub(crate) struct Shape {
    /// Its name.
    pub(crate) attribute: &'static str,
    /// What the method is.
    pub(crate) role: &'static str,
    /// What it must take.
    pub(crate) inputs: &'static str,
}

impl Shape {
    /// Of a method that is called with arguments.
    pub(crate) const fn of_call(attribute: &'static str, role: &'static str) -> Self {
        Self {
            attribute,
            role,
            inputs: "the method must take `&self`, the transaction (`tx: &mut FencedTransaction`) \
                     and the arguments by value",
        }
    }
}

/// Keeps the method and writes `action` beside it; an error is written there as one.
pub(crate) fn expand(
    shape: &Shape,
    item: &TokenStream,
    action: impl FnOnce(&PhaseOne, &ItemFn) -> syn::Result<TokenStream>,
) -> TokenStream {
    let method = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(method) => method,
        Err(error) => {
            let text = format!(
                "`#[{}]` goes on an async method with a body",
                shape.attribute
            );
            // The item itself stays, so that the compiler's own words about it stay too.
            let error = Error::new(error.span(), text).to_compile_error();
            return quote! { #error #item };
        }
    };
    match read(shape, &method.sig).and_then(|found| action(&found, &method)) {
        Ok(action) => quote! { #method #action },
        Err(error) => {
            let error = error.to_compile_error();
            // Without the attribute the method still exists for its callers.
            quote! { #error #method }
        }
    }
}

fn read(shape: &Shape, signature: &Signature) -> syn::Result<PhaseOne> {
    let role = shape.role;
    let wrong = |span, text: &str| Err(Error::new(span, text));
    if signature.asyncness.is_none() {
        let text = format!("a {role} works in a database, so the method must be async");
        return wrong(signature.fn_token.span(), &text);
    }
    if !signature.generics.params.is_empty() {
        let text = format!("an action has one name, so its {role} cannot be generic");
        return wrong(signature.generics.span(), &text);
    }
    let shape = shape.inputs;
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
    Ok(PhaseOne {
        transaction,
        arguments: (*arguments.ty).clone(),
        output: (**output).clone(),
    })
}

/// A handler of phase two, as the library calls it.
pub(crate) fn ended(handler: &Ident) -> TokenStream {
    // Errors show at the name in the attribute.
    quote_spanned! {handler.span()=>
        |service, tx, arguments| ::std::boxed::Box::pin(async move {
            ::accede_rm_agent::tcc::__macros::ended(
                Self::#handler(service, tx, arguments).await,
            )
        })
    }
}

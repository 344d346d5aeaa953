//! Writes the function that makes a step of sagas of a method.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Error, GenericArgument, Ident, ItemFn, LitStr, PathArguments, Type, spanned::Spanned as _,
};

use crate::{
    arguments::{self, Arguments, Key},
    phase_one::{self, PhaseOne, Shape},
};

const KEYS: [Key; 1] = [Key {
    name: "compensate",
    example: "compensate = cancel",
    missing: Some("what takes it back?"),
}];

const SHAPE: Shape = Shape {
    attribute: "saga_step",
    role: "step",
    inputs: "the method must take `&self`, the transaction (`tx: &mut FencedTransaction`) and the \
             input (`input: StepInput<…>`)",
};

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    phase_one::expand(&SHAPE, item, |found, method| {
        let input = input_of(&found.arguments)?;
        let Arguments { resource, methods } = arguments::read(arguments, &KEYS)?;
        let [Some(compensate)] = &methods else {
            unreachable!("a missing method is an error");
        };
        Ok(action(&resource, compensate, found, &input, method))
    })
}

/// The `T` of `StepInput<T>`.
fn input_of(argument: &Type) -> syn::Result<Type> {
    let wrong = || Error::new(argument.span(), SHAPE.inputs);
    let Type::Path(path) = argument else {
        return Err(wrong());
    };
    let last = path.path.segments.last().ok_or_else(wrong)?;
    let PathArguments::AngleBracketed(inside) = &last.arguments else {
        return Err(wrong());
    };
    match inside.args.first() {
        Some(GenericArgument::Type(input)) if last.ident == "StepInput" => Ok(input.clone()),
        _ => Err(wrong()),
    }
}

fn action(
    resource: &LitStr,
    compensate: &Ident,
    found: &PhaseOne,
    input: &Type,
    method: &ItemFn,
) -> TokenStream {
    let (transaction, output) = (&found.transaction, &found.output);
    let (run, visibility) = (&method.sig.ident, &method.vis);
    let name = format_ident!("{}_step", run, span = run.span());
    let about = format!(
        "The action `{}` as a step of sagas: done by [`{run}`](Self::{run}), taken back by \
         [`{compensate}`](Self::{compensate}). To be given to the agent's builder.",
        resource.value()
    );
    let ended = |handler: &Ident| {
        // Errors show at the name in the attribute.
        quote_spanned! {handler.span()=>
            |service, tx, input| ::std::boxed::Box::pin(async move {
                ::accede_rm_agent::saga::__macros::ended(
                    Self::#handler(service, tx, input).await,
                )
            })
        }
    };
    let (run, compensate) = (ended(run), ended(compensate));
    let output = quote! {
        <#output as ::accede_rm_agent::saga::__macros::Outcome>::Output
    };
    quote! {
        #[doc = #about]
        #visibility fn #name(
            service: &::std::sync::Arc<Self>,
        ) -> ::accede_rm_agent::saga::SagaAction {
            let handlers: ::accede_rm_agent::saga::StepHandlers<
                Self, #transaction, #input, #output,
            > = ::accede_rm_agent::saga::StepHandlers {
                resource: #resource,
                run: #run,
                compensate: #compensate,
            };
            ::accede_rm_agent::saga::SagaAction::of_service(service, handlers)
        }
    }
}

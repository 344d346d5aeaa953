//! Writes the function that makes a TCC action of a method.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Ident, ItemFn, LitStr};

use crate::{
    arguments::{self, Arguments, Key},
    phase_one::{self, PhaseOne, Shape, ended},
};

const KEYS: [Key; 2] = [
    Key {
        name: "confirm",
        example: "confirm = settle",
        missing: Some("what confirms it?"),
    },
    Key {
        name: "cancel",
        example: "cancel = release",
        missing: Some("what cancels it?"),
    },
];

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    phase_one::expand(&Shape::of_call("tcc", "try"), item, |found, method| {
        let Arguments { resource, methods } = arguments::read(arguments, &KEYS)?;
        let [Some(confirm), Some(cancel)] = &methods else {
            unreachable!("a missing method is an error");
        };
        Ok(action(&resource, (confirm, cancel), found, method))
    })
}

fn action(
    resource: &LitStr,
    (confirm, cancel): (&Ident, &Ident),
    found: &PhaseOne,
    method: &ItemFn,
) -> TokenStream {
    let PhaseOne {
        transaction,
        arguments,
        ..
    } = found;
    let (try_it, visibility) = (&method.sig.ident, &method.vis);
    let name = format_ident!("{}_tcc", try_it, span = try_it.span());
    let about = format!(
        "The action `{}`: tried by [`{try_it}`](Self::{try_it}), then confirmed by \
         [`{confirm}`](Self::{confirm}) or cancelled by [`{cancel}`](Self::{cancel}). To be given \
         to the agent's builder, and called.",
        resource.value()
    );
    let (confirm, cancel) = (ended(confirm), ended(cancel));
    let (error, output) = found.sides();
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

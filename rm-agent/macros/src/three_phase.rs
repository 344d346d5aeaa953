//! Writes the function that makes a participant of 3PC of a method.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Ident, ItemFn, LitStr};

use crate::{
    arguments::{self, Arguments, Key},
    phase_one::{self, PhaseOne, Shape, ended},
};

const KEYS: [Key; 3] = [
    Key {
        name: "pre_commit",
        example: "pre_commit = announce",
        missing: None,
    },
    Key {
        name: "do_commit",
        example: "do_commit = settle",
        missing: Some("what commits it?"),
    },
    Key {
        name: "abort",
        example: "abort = release",
        missing: Some("what aborts it?"),
    },
];

pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    phase_one::expand(
        &Shape::of_call("three_phase", "vote"),
        item,
        |found, method| {
            let Arguments { resource, methods } = arguments::read(arguments, &KEYS)?;
            let [pre_commit, Some(do_commit), Some(abort)] = &methods else {
                unreachable!("a missing method is an error");
            };
            let handlers = (pre_commit.as_ref(), do_commit, abort);
            Ok(participant(&resource, handlers, found, method))
        },
    )
}

fn participant(
    resource: &LitStr,
    (pre_commit, do_commit, abort): (Option<&Ident>, &Ident, &Ident),
    found: &PhaseOne,
    method: &ItemFn,
) -> TokenStream {
    let PhaseOne {
        transaction,
        arguments,
        ..
    } = found;
    let (can_commit, visibility) = (&method.sig.ident, &method.vis);
    let name = format_ident!("{}_three_phase", can_commit, span = can_commit.span());
    let about = format!(
        "The participant `{}`: promises by [`{can_commit}`](Self::{can_commit}), then commits by \
         [`{do_commit}`](Self::{do_commit}) or aborts by [`{abort}`](Self::{abort}). To be given \
         to the agent's builder, and called.",
        resource.value()
    );
    let pre_commit = match pre_commit {
        Some(pre_commit) => {
            let handler = ended(pre_commit);
            quote! { ::std::option::Option::Some(#handler) }
        }
        None => quote! { ::std::option::Option::None },
    };
    let (do_commit, abort) = (ended(do_commit), ended(abort));
    let (error, output) = found.sides();
    quote! {
        #[doc = #about]
        #visibility fn #name(
            service: &::std::sync::Arc<Self>,
        ) -> ::accede_rm_agent::three_phase::Participant<#arguments, #error, #output> {
            let handlers: ::accede_rm_agent::three_phase::ThreePhaseHandlers<
                Self, #transaction, #arguments, #error, #output,
            > = ::accede_rm_agent::three_phase::ThreePhaseHandlers {
                resource: #resource,
                can_commit: |service, tx, arguments| ::std::boxed::Box::pin(
                    Self::#can_commit(service, tx, arguments)
                ),
                pre_commit: #pre_commit,
                do_commit: #do_commit,
                abort: #abort,
            };
            ::accede_rm_agent::three_phase::Participant::of_service(service, handlers)
        }
    }
}

//! Plans of sagas to and from bytes.

use alloc::vec::Vec;

use super::{
    DecodeError, Reader, Writer,
    command::{flags, get_flags, get_request, get_xid, put_request, put_xid},
};
use crate::{
    command::{Command, StartSaga},
    payload::Payload,
    saga::{OnTrouble, StepPlan},
};

/// The step is a callback's.
const CALLBACK: u8 = 1;
/// It is tried until the deadline: no number of attempts follows.
const FORWARD: u8 = 2;

pub(super) fn put_start_saga(w: &mut Writer, start: &StartSaga) {
    let StartSaga {
        xid,
        request,
        steps,
        commit_when_done,
    } = start;
    put_xid(w, *xid);
    put_request(w, *request);
    w.bool(*commit_when_done);
    w.list(steps, put_step);
}

pub(super) fn get_start_saga(r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(Command::StartSaga(StartSaga {
        xid: get_xid(r)?,
        request: get_request(r)?,
        commit_when_done: r.bool()?,
        steps: r.list(get_step)?,
    }))
}

pub(crate) fn put_step(w: &mut Writer, step: &StepPlan) {
    let StepPlan {
        name,
        resource,
        callback,
        input,
        after,
        attempt_timeout_ms,
        on_trouble,
    } = step;
    w.u8(flags([
        (*callback, CALLBACK),
        (*on_trouble == OnTrouble::Forward, FORWARD),
    ]));
    w.str(name);
    w.str(resource);
    w.bytes(input);
    w.list(after, |w, at| w.varint((*at).into()));
    w.varint((*attempt_timeout_ms).into());
    if let OnTrouble::Backward { attempts } = on_trouble {
        w.varint((*attempts).into());
    }
}

pub(crate) fn get_step(r: &mut Reader<'_>) -> Result<StepPlan, DecodeError> {
    let flags = get_flags(r, "set of step flags", CALLBACK | FORWARD)?;
    Ok(StepPlan {
        callback: flags & CALLBACK != 0,
        name: r.shared_str()?,
        resource: r.shared_str()?,
        input: Payload::from(r.bytes()?),
        after: r.list(|r| r.small("place of a step"))?,
        attempt_timeout_ms: r.small("time-out in milliseconds")?,
        on_trouble: match flags & FORWARD {
            0 => OnTrouble::Backward {
                attempts: r.small("number of attempts")?,
            },
            _ => OnTrouble::Forward,
        },
    })
}

/// Whether the places in a plan are as its validation left them.
pub(crate) fn is_acyclic<'a>(steps: impl IntoIterator<Item = &'a Vec<u16>>) -> bool {
    let mut steps = steps.into_iter().enumerate();
    steps.all(|(at, after)| after.iter().all(|before| usize::from(*before) < at))
}

//! Rejections and troubles as the wire tells them: a code for programs, a sentence for people.

use accede_core::{Decision, Rejection, Reply, Xid};
use accede_proto::v1::{self, Refusal, refusal::Code};
use bytes::Bytes;
use prost::Message as _;
use tonic::{Status, metadata::MetadataValue};

use crate::{
    convert,
    limits::{RETRY_AFTER_LIMIT_MS, RETRY_AFTER_MS},
    trouble::{Answer, Trouble},
};

/// The metadata key that names the refusal's code in the status of a unary call; the same key
/// with `-bin` appended holds the whole `Refusal` message.
pub const REFUSAL_KEY: &str = "accede-refusal";
const REFUSAL_KEY_BIN: &str = "accede-refusal-bin";

/// A refusal of the doors themselves.
pub(crate) fn new(code: Code, message: impl Into<String>) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        ..Refusal::default()
    }
}

/// Breaks a rule of the protocol.
pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    new(Code::Invalid, message)
}

/// Over a limit.
pub(crate) fn too_large(what: &str, found: usize, limit: usize) -> Refusal {
    new(
        Code::TooLarge,
        format!("{what} is too large: {found}, at most {limit} are allowed; make it smaller"),
    )
}

/// What a caller is told whose answer is no good one.
pub(crate) fn of_answer(answer: Answer, xid: Option<Xid>, resource: Option<&str>) -> Refusal {
    match answer {
        Ok(Reply::Refused(rejection)) => of_rejection(&rejection, xid, resource),
        Ok(other) => {
            tracing::error!(
                ?xid,
                ?other,
                "the state machine's reply does not fit the request"
            );
            let text = "the coordinator's answer does not fit the request, which is a bug in it";
            new(Code::UnknownOutcome, text)
        }
        Err(trouble) => of_trouble(&trouble),
    }
}

/// Why a request did not get through.
pub(crate) fn of_trouble(trouble: &Trouble) -> Refusal {
    match trouble {
        Trouble::Overloaded => Refusal {
            retry_after_ms: RETRY_AFTER_MS,
            ..new(
                Code::Overloaded,
                "the coordinator has too much to do and finishes what is begun first; nothing \
                 was done, try again later",
            )
        },
        Trouble::Unknown(reason) => new(
            Code::UnknownOutcome,
            format!(
                "whether the request was logged is not known ({reason}); ask again with the same id"
            ),
        ),
        Trouble::NotLeader(Some(leader)) => new(
            Code::NotLeader,
            format!("this coordinator does not lead its cluster, node {leader} does; ask there"),
        ),
        Trouble::NotLeader(None) => new(
            Code::NotLeader,
            "this coordinator does not lead its cluster; ask another one, or again in a moment",
        ),
        Trouble::ShuttingDown => new(
            Code::ShuttingDown,
            "the coordinator is shutting down; connect to another one, or again when it is back",
        ),
    }
}

/// The state machine's rejection. `xid` and `resource` are those of the request.
pub(crate) fn of_rejection(
    rejection: &Rejection,
    xid: Option<Xid>,
    resource: Option<&str>,
) -> Refusal {
    let it = xid.map_or_else(
        || "the request".to_owned(),
        |xid| match xid.is_outside() {
            true => xid.to_string(),
            false => format!("transaction {xid}"),
        },
    );
    let resource = resource.unwrap_or("the resource");
    let (code, message) = match rejection {
        Rejection::TooLarge { what, found, limit } => (
            Code::TooLarge,
            format!(
                "{it}: {what} is too large: {found}, at most {limit} are allowed; make it smaller"
            ),
        ),
        Rejection::Malformed(what) => (
            Code::Invalid,
            format!("{it}: the request makes no sense: {what}"),
        ),
        Rejection::LeaseEnded => (
            Code::LeaseEnded,
            format!(
                "{it}: the worker's lease has ended or belongs to another process; take a new one"
            ),
        ),
        Rejection::NoWorkerLeft => (
            Code::LimitReached,
            "all worker ids are leased; try again when a client process has ended".to_owned(),
        ),
        Rejection::OutsideLease => (
            Code::Invalid,
            format!(
                "{it}: the id lies outside its worker's lease or not above its earlier ones; is the client's id maker sound?"
            ),
        ),
        Rejection::TooManyOpen { limit } => (
            Code::LimitReached,
            format!(
                "{it}: {limit} transactions are open, more are not allowed; try again when some have ended"
            ),
        ),
        Rejection::NotBegun => (
            Code::NotBegun,
            format!("{it} was never begun here; begin it first, over the same session"),
        ),
        Rejection::Forgotten => (
            Code::Forgotten,
            format!("{it} ended so long ago that its outcome is forgotten"),
        ),
        Rejection::DifferentContent => (
            Code::DifferentContent,
            format!(
                "{it}: the same request id came before with other content; number requests anew"
            ),
        ),
        Rejection::Withdrawn => (
            Code::Withdrawn,
            format!("{it}: this request was withdrawn before; send a new one with a new id"),
        ),
        Rejection::AlreadyDecided(decision) => (
            Code::AlreadyDecided,
            format!(
                "{it} is decided already: it {}; roll back the local transaction",
                went(*decision)
            ),
        ),
        Rejection::CommitAsked => (
            Code::AlreadyDecided,
            format!(
                "{it}: its commit was asked for, so no branch can join; roll back the local transaction and finish all calls before the commit"
            ),
        ),
        Rejection::ResourceUnknown => (
            Code::ResourceUnknown,
            format!(
                "{it}: resource {resource:?} is not known here; attach an agent that serves it first"
            ),
        ),
        Rejection::ResourceIsAction => (
            Code::ResourceMismatch,
            format!(
                "{it}: {resource:?} is the name of an action; only TCC, Saga and 3PC branches go there, so give the database another name"
            ),
        ),
        Rejection::ResourceIsDatabase => (
            Code::ResourceMismatch,
            format!(
                "{it}: {resource:?} is the name of a database; only AT and XA branches go there, so give the action another name"
            ),
        ),
        Rejection::ResourceMismatch {
            resource: bound,
            database,
        } => (
            Code::ResourceMismatch,
            format!(
                "resource {resource:?} does not fit: the name {bound:?} belongs to database {}; give each database a name of its own, the same in all services",
                uuid::Uuid::from_bytes(*database)
            ),
        ),
        Rejection::TooManyBranches { limit } => (
            Code::LimitReached,
            format!(
                "{it} has {limit} branches or requests, more are not allowed; split the work into smaller transactions"
            ),
        ),
        Rejection::PayloadsFull { limit } => (
            Code::LimitReached,
            format!(
                "{it}: the payloads of all open branches take {limit} bytes already, more are not allowed; try again when some transactions have ended"
            ),
        ),
        Rejection::TooManyWaiting { limit } => (
            Code::LimitReached,
            format!("{it}: {limit} requests wait already, more are not allowed; try again later"),
        ),
        Rejection::HolderRollingBack { holder } => (
            Code::HolderRollingBack,
            format!(
                "{it}: a row is locked by transaction {holder}, which rolls back and needs the row; roll back locally and try again"
            ),
        ),
        Rejection::HolderBlocked { holder } => (
            Code::HolderBlocked,
            format!(
                "{it}: a row is locked by transaction {holder}, which waits in a database, perhaps for this local transaction; roll back locally and try again"
            ),
        ),
        Rejection::Deadlock { cycle } => (Code::Deadlock, deadlock(&it, cycle)),
        Rejection::LockWaitTimedOut { holder } => {
            let who = match holder.is_outside() {
                true => "wanted by a local transaction before".to_owned(),
                false => format!("locked by transaction {holder}"),
            };
            let text = format!(
                "{it}: a row is {who} and was not free within the wait limit; roll back locally and try again"
            );
            (Code::LockWaitTimedOut, text)
        }
        Rejection::OtherSaga => (
            Code::OtherSaga,
            format!(
                "{it} has a saga already, and a transaction has one at most; put all steps into \
                 that one, or run this one in a transaction of its own"
            ),
        ),
        Rejection::ActionUnknown { action } => (
            Code::ResourceUnknown,
            format!(
                "{it}: no agent has ever served the action {action:?}, of which the saga has a step; attach one first"
            ),
        ),
        Rejection::BranchUnknown => (Code::BranchState, format!("{it} has no such branch")),
        Rejection::BranchState(state) => (
            Code::BranchState,
            format!("{it}: the branch does not allow this: {state}"),
        ),
        Rejection::NotStuck => (
            Code::BranchState,
            format!("{it}: there is nothing stuck to repair"),
        ),
    };
    Refusal {
        retry_after_ms: retry_after(rejection),
        holder: holder(rejection),
        decision: match rejection {
            Rejection::AlreadyDecided(decision) => crate::convert::decision(*decision).into(),
            _ => v1::Decision::Unspecified.into(),
        },
        ..new(code, message)
    }
}

fn went(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commits",
        Decision::RollBack => "rolls back",
    }
}

fn deadlock(it: &str, cycle: &[Xid]) -> String {
    let mut path: Vec<String> = cycle.iter().map(ToString::to_string).collect();
    path.extend(cycle.first().map(ToString::to_string));
    format!(
        "{it}: waiting for the row would be a deadlock: {}; roll back and try again",
        path.join(" waits for ")
    )
}

fn retry_after(rejection: &Rejection) -> u32 {
    match rejection {
        Rejection::NoWorkerLeft
        | Rejection::TooManyOpen { .. }
        | Rejection::PayloadsFull { .. }
        | Rejection::TooManyWaiting { .. } => RETRY_AFTER_LIMIT_MS,
        Rejection::HolderRollingBack { .. } | Rejection::HolderBlocked { .. } => RETRY_AFTER_MS,
        _ => 0,
    }
}

fn holder(rejection: &Rejection) -> u64 {
    match rejection {
        Rejection::HolderRollingBack { holder }
        | Rejection::HolderBlocked { holder }
        | Rejection::LockWaitTimedOut { holder } => convert::on_wire(*holder),
        Rejection::Deadlock { cycle } => cycle.get(1).copied().map_or(0, convert::on_wire),
        _ => 0,
    }
}

/// A refusal as the status of a unary call.
pub(crate) fn status(refusal: &Refusal) -> Status {
    let mut status = Status::new(grpc_code(refusal.code()), refusal.message.clone());
    let name = refusal.code().as_str_name();
    status
        .metadata_mut()
        .insert(REFUSAL_KEY, MetadataValue::from_static(name));
    let whole = MetadataValue::from_bytes(&Bytes::from(refusal.encode_to_vec()));
    status.metadata_mut().insert_bin(REFUSAL_KEY_BIN, whole);
    status
}

fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::Invalid | Code::TooLarge | Code::DifferentContent => tonic::Code::InvalidArgument,
        Code::NotBegun | Code::Forgotten | Code::ResourceUnknown => tonic::Code::NotFound,
        Code::AlreadyDecided
        | Code::LeaseEnded
        | Code::ResourceMismatch
        | Code::BranchState
        | Code::OtherSaga
        | Code::OtherCluster => tonic::Code::FailedPrecondition,
        Code::Withdrawn
        | Code::HolderRollingBack
        | Code::HolderBlocked
        | Code::Deadlock
        | Code::LockWaitTimedOut => tonic::Code::Aborted,
        Code::Overloaded | Code::LimitReached => tonic::Code::ResourceExhausted,
        Code::NotLeader | Code::ShuttingDown => tonic::Code::Unavailable,
        Code::UnknownOutcome | Code::Unspecified => tonic::Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid(n: u64) -> Xid {
        Xid::new(n).expect("an id")
    }

    fn every_rejection() -> Vec<(Rejection, Code, &'static str)> {
        let (holder, resource) = (xid(0xabc), "other".into());
        let cycle = vec![xid(1), xid(2)];
        let database = [7; 16];
        let large = Rejection::TooLarge {
            what: "a name",
            found: 9,
            limit: 8,
        };
        let mismatch = Rejection::ResourceMismatch { resource, database };
        vec![
            (large, Code::TooLarge, "9, at most 8"),
            (Rejection::Malformed("unsorted"), Code::Invalid, "unsorted"),
            (Rejection::LeaseEnded, Code::LeaseEnded, "take a new one"),
            (Rejection::NoWorkerLeft, Code::LimitReached, "try again"),
            (Rejection::OutsideLease, Code::Invalid, "outside"),
            (
                Rejection::TooManyOpen { limit: 5 },
                Code::LimitReached,
                "5 transactions",
            ),
            (Rejection::NotBegun, Code::NotBegun, "never begun"),
            (Rejection::Forgotten, Code::Forgotten, "forgotten"),
            (
                Rejection::DifferentContent,
                Code::DifferentContent,
                "other content",
            ),
            (Rejection::Withdrawn, Code::Withdrawn, "withdrawn"),
            (
                Rejection::AlreadyDecided(Decision::Commit),
                Code::AlreadyDecided,
                "commits",
            ),
            (
                Rejection::AlreadyDecided(Decision::RollBack),
                Code::AlreadyDecided,
                "rolls back",
            ),
            (
                Rejection::CommitAsked,
                Code::AlreadyDecided,
                "commit was asked",
            ),
            (
                Rejection::ResourceUnknown,
                Code::ResourceUnknown,
                "\"stock\"",
            ),
            (
                Rejection::ResourceIsAction,
                Code::ResourceMismatch,
                "\"stock\" is the name of an action",
            ),
            (
                Rejection::ResourceIsDatabase,
                Code::ResourceMismatch,
                "\"stock\" is the name of a database",
            ),
            (mismatch, Code::ResourceMismatch, "07070707-0707"),
            (
                Rejection::PayloadsFull { limit: 4 },
                Code::LimitReached,
                "4 bytes",
            ),
            (
                Rejection::TooManyBranches { limit: 6 },
                Code::LimitReached,
                "6 branches",
            ),
            (
                Rejection::TooManyWaiting { limit: 7 },
                Code::LimitReached,
                "7 requests",
            ),
            (
                Rejection::HolderRollingBack { holder },
                Code::HolderRollingBack,
                "0000abc",
            ),
            (
                Rejection::HolderBlocked { holder },
                Code::HolderBlocked,
                "0000abc, which waits in a database",
            ),
            (
                Rejection::Deadlock { cycle },
                Code::Deadlock,
                "0002 waits for 0000000000000001",
            ),
            (
                Rejection::LockWaitTimedOut { holder },
                Code::LockWaitTimedOut,
                "0000abc",
            ),
            (Rejection::OtherSaga, Code::OtherSaga, "has a saga already"),
            (
                Rejection::ActionUnknown {
                    action: "ship".into(),
                },
                Code::ResourceUnknown,
                "\"ship\"",
            ),
            (
                Rejection::BranchUnknown,
                Code::BranchState,
                "no such branch",
            ),
            (
                Rejection::BranchState("it is done"),
                Code::BranchState,
                "it is done",
            ),
            (Rejection::NotStuck, Code::BranchState, "nothing stuck"),
        ]
    }

    #[test]
    fn every_rejection_has_its_code_and_says_why() {
        for (rejection, code, words) in every_rejection() {
            let refusal = of_rejection(&rejection, Some(xid(0x77)), Some("stock"));
            assert_eq!(refusal.code(), code, "{rejection:?}");
            assert!(
                refusal.message.contains(words),
                "{words}: {}",
                refusal.message
            );
            let status = status(&refusal);
            assert_ne!(status.code(), tonic::Code::Ok);
            assert_ne!(status.code(), tonic::Code::Unknown, "{rejection:?}");
            let named = status.metadata().get(REFUSAL_KEY).expect("named");
            assert_eq!(named, code.as_str_name());
            let whole = status.metadata().get_bin(REFUSAL_KEY_BIN).expect("whole");
            let whole = whole.to_bytes().expect("sound");
            assert_eq!(Refusal::decode(whole).expect("sound"), refusal);
        }
    }

    #[test]
    fn what_programs_need_stands_in_fields() {
        let decided = of_rejection(&Rejection::AlreadyDecided(Decision::RollBack), None, None);
        assert_eq!(decided.decision(), v1::Decision::RollBack);
        let holder = Rejection::HolderRollingBack { holder: xid(5) };
        let held = of_rejection(&holder, None, None);
        assert_eq!((held.holder, held.retry_after_ms), (5, RETRY_AFTER_MS));
        let cycle = vec![xid(1), xid(2), xid(3)];
        assert_eq!(
            of_rejection(&Rejection::Deadlock { cycle }, None, None).holder,
            2
        );
        let full = of_rejection(&Rejection::TooManyOpen { limit: 1 }, None, None);
        assert_eq!(full.retry_after_ms, RETRY_AFTER_LIMIT_MS);
    }

    #[test]
    fn every_trouble_says_what_to_do() {
        let cases = [
            (Trouble::Overloaded, Code::Overloaded, "try again later"),
            (
                Trouble::Unknown("cut".into()),
                Code::UnknownOutcome,
                "(cut); ask again",
            ),
            (Trouble::NotLeader(Some(3)), Code::NotLeader, "node 3 does"),
            (Trouble::NotLeader(None), Code::NotLeader, "ask another"),
            (Trouble::ShuttingDown, Code::ShuttingDown, "shutting down"),
        ];
        for (trouble, code, words) in cases {
            let refusal = of_answer(Err(trouble), None, None);
            assert_eq!(refusal.code(), code);
            assert!(refusal.message.contains(words), "{}", refusal.message);
            assert!(status(&refusal).code() != tonic::Code::Ok);
        }
        let odd = of_answer(Ok(Reply::LocksFree), Some(xid(1)), None);
        assert_eq!(odd.code(), Code::UnknownOutcome);
    }
}

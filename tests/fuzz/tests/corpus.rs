//! Makes the corpus anew, from real runs. Inputs that found something are kept beside it under
//! names that begin with `found-`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use accede_core::codec::encode_batch;
use accede_fuzz_replay::{Random, directory, wire::MESSAGES, workload::Workload};
use accede_proto::v1::{
    self, branch_finished, branch_request, saga_step_plan, transaction_request,
};
use prost::Message as _;

fn folder(target: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("the corpus can be written");
    for file in fs::read_dir(&folder).expect("the folder is there") {
        let path = file.expect("the folder can be read").path();
        if !path
            .file_name()
            .expect("files have names")
            .to_string_lossy()
            .starts_with("found-")
        {
            fs::remove_file(path).expect("the corpus can be written");
        }
    }
    folder
}

fn state_machine() {
    let (states, batches) = (folder("state"), folder("batch"));
    for seed in 0..12 {
        let mut work = Workload::new(seed);
        for part in 0..4 {
            let commands: Vec<_> = (0..30).map(|_| work.step()).collect();
            let name = format!("run-{seed:02}-{part}");
            let batch = encode_batch(work.state.now(), accede_core::WallTime(seed), &commands);
            fs::write(batches.join(&name), batch).expect("the corpus can be written");
            if part % 2 == 1 {
                fs::write(states.join(&name), work.state.to_snapshot())
                    .expect("the corpus can be written");
            }
        }
    }
}

/// Programs: which bytes they are hardly matters, that there are some of each length does.
fn directories() {
    for target in ["log", "snapshot-file"] {
        let folder = folder(target);
        for seed in 0..64 {
            let mut random = Random::new(1_000_000 + seed);
            let program = directory::make_program(&mut random, &[seed as u8], &[0]);
            fs::write(folder.join(format!("program-{seed:02}")), program)
                .expect("the corpus can be written");
        }
    }
}

fn wire() {
    let folder = folder("wire");
    let put = |name: &str, variant: usize, frame: Vec<u8>| {
        let which = MESSAGES
            .iter()
            .position(|(known, _)| *known == name)
            .expect("the message is in the table");
        let mut input = vec![which as u8];
        input.extend(frame);
        fs::write(folder.join(format!("{name}-{variant}")), input)
            .expect("the corpus can be written");
    };
    let xid = 0x0000_2627_ba40_0001;
    for (variant, body) in branch_bodies(xid).into_iter().enumerate() {
        let body = Some(body);
        let request = v1::BranchRequest { tag: 7, body };
        put("branch-request", variant, request.encode_to_vec());
    }
    for (variant, body) in transaction_bodies(xid).into_iter().enumerate() {
        let body = Some(body);
        let request = v1::TransactionRequest { tag: 9, body };
        put("transaction-request", variant, request.encode_to_vec());
    }
    put("register-branch", 0, register(xid).encode_to_vec());
    put("check-row-locks", 0, check(xid).encode_to_vec());
    put(
        "branch-done",
        0,
        v1::BranchDone { xid, branch: 1 }.encode_to_vec(),
    );
    put("branch-withdrawn", 0, withdrawn(xid).encode_to_vec());
    put("branch-doomed", 0, doomed(xid).encode_to_vec());
    let begin = v1::BeginRequest {
        name: "place-order".into(),
        timeout_ms: 30_000,
        ..Default::default()
    };
    put("begin", 0, begin.encode_to_vec());
    put("commit", 0, v1::CommitRequest { xid }.encode_to_vec());
    put("roll-back", 0, roll_back(xid).encode_to_vec());
    put(
        "get-outcome",
        0,
        v1::GetOutcomeRequest { xid }.encode_to_vec(),
    );
    put("get-status", 0, Vec::new());
    let list = v1::ListTransactionsRequest::default();
    put("list-transactions", 0, list.encode_to_vec());
    put(
        "get-transaction",
        0,
        v1::GetTransactionRequest { xid }.encode_to_vec(),
    );
    let repair = v1::RepairRequest {
        xid,
        branch: 1,
        verb: v1::RepairVerb::Accept.into(),
        by: "ann".into(),
        reason: "the row is right".into(),
    };
    put("repair", 0, repair.encode_to_vec());
}

fn request_id() -> Option<v1::RequestId> {
    Some(v1::RequestId {
        client: 77,
        sequence: 3,
    })
}

fn register(xid: u64) -> v1::RegisterBranch {
    v1::RegisterBranch {
        xid,
        request: request_id(),
        resource: "stock".into(),
        mode: v1::Mode::At.into(),
        row_locks: vec![b"stock/0001"[..].into(), b"stock/0002"[..].into()],
        wait_limit_ms: 1_000,
        holds_local_locks: true,
        agent: 77,
        ..Default::default()
    }
}

fn check(xid: u64) -> v1::CheckRowLocks {
    v1::CheckRowLocks {
        xid,
        request: request_id(),
        resource: "stock".into(),
        row_locks: vec![b"stock/0001"[..].into()],
        ..Default::default()
    }
}

fn withdrawn(xid: u64) -> v1::BranchWithdrawn {
    v1::BranchWithdrawn {
        xid,
        request: request_id(),
        resource: "stock".into(),
    }
}

fn doomed(xid: u64) -> v1::BranchDoomed {
    v1::BranchDoomed {
        xid,
        branch: 1,
        detail: "the connection broke".into(),
    }
}

fn roll_back(xid: u64) -> v1::RollBackRequest {
    v1::RollBackRequest {
        xid,
        reason: "sold out".into(),
    }
}

fn step(name: &str, after: &[u32]) -> v1::SagaStepPlan {
    v1::SagaStepPlan {
        name: name.into(),
        participant: Some(saga_step_plan::Participant::Action("ship".into())),
        input: b"{\"seats\":2}"[..].into(),
        after: after.to_vec(),
        attempt_timeout_ms: 10_000,
        on_trouble: Some(saga_step_plan::OnTrouble::BackwardAttempts(3)),
    }
}

fn branch_bodies(xid: u64) -> Vec<branch_request::Body> {
    use branch_request::Body;
    let resource = v1::Resource {
        name: "stock".into(),
        database_id: vec![1; 16].into(),
    };
    let failure = v1::PhaseTwoFailure {
        reason: "the row was changed".into(),
        difference: "count: 3, expected 4".into(),
        repair_statement: "UPDATE stock SET count = 4".into(),
    };
    let finished = |result| {
        Body::Finished(v1::BranchFinished {
            xid,
            branch: 1,
            attempt: 2,
            epoch: 5,
            resource: "stock".into(),
            result: Some(result),
        })
    };
    vec![
        Body::Open(v1::OpenBranchSession {
            agent_name: "stock".into(),
            agent: 77,
            resources: vec![resource.clone(), resource],
            cluster_id: vec![7; 16].into(),
        }),
        Body::Register(register(xid)),
        Body::CheckLocks(check(xid)),
        Body::Done(v1::BranchDone { xid, branch: 1 }),
        Body::Withdrawn(withdrawn(xid)),
        Body::Doomed(doomed(xid)),
        finished(branch_finished::Result::Finished(v1::Empty {})),
        finished(branch_finished::Result::Stuck(failure)),
        Body::AskEnded(v1::AskEnded {
            resource: "stock".into(),
            xids: vec![xid, xid + 1, xid + (1 << 22)],
        }),
        finished(branch_finished::Result::Ran(v1::StepRan {
            result: b"571"[..].into(),
        })),
        Body::PromisesSeen(v1::PromisesSeen {
            resource: "pay".into(),
            waiting: 3,
            oldest_ms: 12_500,
            impossible: 1,
            alone: 2,
        }),
    ]
}

fn transaction_bodies(xid: u64) -> Vec<transaction_request::Body> {
    use transaction_request::Body;
    vec![
        Body::Open(v1::OpenTransactionSession {
            client_name: "front".into(),
            client: 78,
            worker: 3,
            has_worker: true,
            cluster_id: vec![7; 16].into(),
        }),
        Body::Begin(v1::Begin {
            xid,
            name: "place-order".into(),
            timeout_ms: 30_000,
            parent: xid - 8192,
        }),
        Body::Commit(v1::CommitRequest { xid }),
        Body::RollBack(roll_back(xid)),
        Body::Renew(v1::RenewLease { worker: 3 }),
        Body::GetOutcome(v1::GetOutcomeRequest { xid }),
        Body::Close(v1::CloseTransactionSession {}),
        Body::StartSaga(v1::StartSagaRequest {
            xid,
            request: request_id(),
            steps: vec![step("flight", &[]), step("hotel", &[0])],
            commit_when_done: true,
        }),
    ]
}

#[test]
#[ignore = "writes the kept corpus: cargo test -p accede-fuzz-replay --test corpus -- --ignored"]
fn make_corpus() {
    state_machine();
    directories();
    wire();
}

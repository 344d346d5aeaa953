//! A step by gRPC: `accede.v1.SagaStep`.

use accede_core::{Outcome, Payload, limits as core_limits};
use accede_proto::v1::{StepCall, saga_step_client::SagaStepClient, step_call::Direction};
use bytes::Bytes;
use tonic::{Code, Request, transport::Endpoint};

use super::{
    Call, problem,
    trust::{Connector, reason},
};
use crate::{convert, limits::CALLBACK_CONNECT};

/// Room for the message around a result.
const AROUND: usize = 1_024;

pub(super) async fn call(connector: Connector, call: &Call<'_>) -> Outcome {
    let url = &call.url;
    let host = url.host_str().unwrap_or_default();
    let scheme = match url.scheme() {
        "grpcs" => "https",
        _ => "http",
    };
    let place = format!("{scheme}://{host}:{}", url.port().unwrap_or_default());
    let endpoint = match Endpoint::from_shared(place) {
        Ok(endpoint) => endpoint
            .connect_timeout(CALLBACK_CONNECT)
            .timeout(call.limit),
        Err(error) => return call.definitely_not(format!("{url} cannot be called: {error}")),
    };
    let channel = match endpoint.connect_with_connector(connector).await {
        Ok(channel) => channel,
        Err(error) => return call.unreachable(&reason(&error)),
    };
    let most = core_limits::MAX_STEP_RESULT_BYTES + AROUND;
    let mut client = SagaStepClient::new(channel).max_decoding_message_size(most);
    let direction = match call.runs() {
        true => Direction::Run,
        false => Direction::Compensate,
    };
    let request = Request::new(StepCall {
        xid: call.order.xid.get(),
        branch: call.order.branch.0,
        step: (*call.step.name).to_owned(),
        attempt: call.order.attempt.0,
        direction: direction.into(),
        input: Bytes::copy_from_slice(&call.order.payload),
        results: convert::saga::outputs(&call.step.results),
        result: call.step.result.as_deref().map(Bytes::copy_from_slice),
        idempotency_key: call.idempotency_key(),
    });
    match client.run(request).await {
        Ok(_) if !call.runs() => Outcome::Finished,
        Ok(done) => Outcome::Ran(Payload::from(&done.into_inner().result[..])),
        Err(status) => {
            let said = format!("{url} answered {:?}: {}", status.code(), status.message());
            match status.code() {
                Code::FailedPrecondition if !status.message().is_empty() => {
                    call.definitely_not(status.message().to_owned())
                }
                Code::FailedPrecondition | Code::OutOfRange => call.definitely_not(said),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => call.silent(said),
                _ => Outcome::Failed(problem(said)),
            }
        }
    }
}

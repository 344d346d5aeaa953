//! A step by HTTP: a POST of JSON.

use accede_core::{Outcome, Payload, StepResult, limits as core_limits};
use accede_proto::callback::{self, Verdict, json};
use bytes::Bytes;
use http::{
    Request, Response,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Call, problem,
    trust::{Connector, reason},
};
use crate::limits::CALLBACK_IDLE_PER_HOST;

/// Keeps connections, and follows no redirect: what a service redirects to is below no prefix.
pub(super) type Client = legacy::Client<Connector, Full<Bytes>>;

pub(super) fn client(connector: Connector) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(CALLBACK_IDLE_PER_HOST)
        .build(connector)
}

pub(super) async fn call(client: &Client, call: &Call<'_>) -> Outcome {
    let request = Request::post(call.url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "accede")
        .header("Idempotency-Key", call.idempotency_key())
        .body(Full::from(body(call)));
    let request = match request {
        Ok(request) => request,
        Err(error) => return call.unreachable(&error.to_string()),
    };
    let answered = async {
        match client.request(request).await {
            Ok(response) => read(call, response).await,
            Err(error) if error.is_connect() => call.unreachable(&reason(&error)),
            Err(error) => call.silent(format!("{} did not answer: {}", call.url, reason(&error))),
        }
    };
    match timeout(call.limit, answered).await {
        Ok(outcome) => outcome,
        Err(_) => call.silent(format!(
            "{} did not answer within {:?}",
            call.url, call.limit
        )),
    }
}

fn body(call: &Call<'_>) -> Vec<u8> {
    let results = call.step.results.iter();
    let named = |r: &StepResult| ((*r.step).to_owned(), json(&r.result));
    let body = callback::Call {
        xid: call.order.xid.to_string(),
        branch: call.order.branch.0,
        step: (*call.step.name).to_owned(),
        attempt: call.order.attempt.0,
        direction: call.direction(),
        input: json(&call.order.payload),
        results: results.map(named).collect(),
        result: match call.runs() {
            true => None,
            false => call.step.result.as_deref().map(json),
        },
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

async fn read<B>(call: &Call<'_>, response: Response<B>) -> Outcome
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let (status, url) = (response.status(), &call.url);
    let wished = retry_after(&response);
    let most = core_limits::MAX_STEP_RESULT_BYTES;
    let text = match Limited::new(response.into_body(), most).collect().await {
        Ok(text) => text.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let why = format!("{url} answered {status} with more than {most} bytes");
            return match Verdict::of_status(status.as_u16()) {
                // A page of a proxy, for example.
                Verdict::Later => later(why, wished),
                Verdict::Done if !call.runs() => Outcome::Finished,
                Verdict::Done | Verdict::CannotBe => call.definitely_not(why),
            };
        }
        Err(error) => return call.silent(format!("{url} did not answer: {}", reason(&*error))),
    };
    let said = || match String::from_utf8_lossy(&text).trim() {
        "" => format!("{url} answered {status}"),
        said => format!("{url} answered {status}: {said}"),
    };
    match Verdict::of_status(status.as_u16()) {
        Verdict::Done if !call.runs() => Outcome::Finished,
        Verdict::Done => {
            let is_json = text.is_empty() || serde_json::from_slice::<Value>(&text).is_ok();
            match is_json {
                true => Outcome::Ran(Payload::from(&text[..])),
                false => call.silent(format!("{url} answered {status} with what is no JSON")),
            }
        }
        Verdict::CannotBe => {
            let reason = String::from_utf8_lossy(&text).trim().to_owned();
            call.definitely_not(if reason.is_empty() { said() } else { reason })
        }
        Verdict::Later => later(said(), wished),
    }
}

fn later(why: String, wished: Option<u32>) -> Outcome {
    match wished {
        Some(ms) => Outcome::Later(problem(why), ms),
        None => Outcome::Failed(problem(why)),
    }
}

/// Milliseconds, if it is said in seconds, as it mostly is; a date is not looked at.
fn retry_after<B>(response: &Response<B>) -> Option<u32> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    let most = u64::from(core_limits::MAX_RETRY_AFTER_MS);
    u32::try_from(seconds.saturating_mul(1_000).min(most)).ok()
}

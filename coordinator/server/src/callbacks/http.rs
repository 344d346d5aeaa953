//! A step by HTTP: a POST of JSON.

use accede_core::{Outcome, Payload, StepResult, limits as core_limits};
use accede_proto::callback::{self, Verdict, json};
use reqwest::{
    Response,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;

use super::{Call, problem};
use crate::{
    Error,
    limits::{CALLBACK_CONNECT, CALLBACK_IDLE_PER_HOST},
};

pub(super) fn client() -> Result<reqwest::Client, Error> {
    // What a service redirects to is below no prefix.
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CALLBACK_CONNECT)
        .pool_max_idle_per_host(CALLBACK_IDLE_PER_HOST)
        .user_agent("accede");
    client.build().map_err(|error| Error::Setting {
        setting: "saga_callbacks",
        value: "used".to_owned(),
        reason: format!("there is no HTTP client: {error}"),
    })
}

pub(super) async fn call(client: &reqwest::Client, call: &Call<'_>) -> Outcome {
    let body = body(call);
    let request = client
        .post(call.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", call.idempotency_key())
        .timeout(call.limit)
        .body(body);
    match request.send().await {
        Ok(response) => read(call, response).await,
        Err(error) => call.silent(silence(call, &error)),
    }
}

fn silence(call: &Call<'_>, error: &reqwest::Error) -> String {
    let url = &call.url;
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => format!("{url} did not answer within {:?}", call.limit),
        (_, true) => format!("{url} cannot be reached"),
        _ => format!("{url} did not answer: {error}"),
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

async fn read(call: &Call<'_>, mut response: Response) -> Outcome {
    let (status, url) = (response.status(), &call.url);
    let wished = retry_after(&response);
    let mut text = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if text.len() + chunk.len() <= core_limits::MAX_STEP_RESULT_BYTES => {
                text.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                let most = core_limits::MAX_STEP_RESULT_BYTES;
                let why = format!("{url} answered {status} with more than {most} bytes");
                return call.definitely_not(why);
            }
            Ok(None) => break,
            Err(error) => return call.silent(silence(call, &error)),
        }
    }
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
        Verdict::Later => match wished {
            Some(ms) => Outcome::Later(problem(said()), ms),
            None => Outcome::Failed(problem(said())),
        },
    }
}

/// Milliseconds, if it is said in seconds, as it mostly is; a date is not looked at.
fn retry_after(response: &Response) -> Option<u32> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    let most = u64::from(core_limits::MAX_RETRY_AFTER_MS);
    u32::try_from(seconds.saturating_mul(1_000).min(most)).ok()
}

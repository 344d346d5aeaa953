//! What the coordinator posts to the URL of a saga's step, and what it makes of the answer.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The JSON that is posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The global transaction, as 16 hexadecimal digits.
    pub xid: String,
    /// The step's number among the transaction's branches, from 1.
    pub branch: u32,
    /// Its name in the plan.
    pub step: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether to do it or to take it back.
    pub direction: Direction,
    /// What the plan gives the step.
    pub input: Value,
    /// What the steps before it returned, those before them included.
    pub results: BTreeMap<String, Value>,
    /// To compensate: what the step itself returned, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// Which way a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Do it.
    Run,
    /// Take back what it did, if it did anything; a step that comes later must not be done.
    Compensate,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Compensate => "compensate",
        })
    }
}

impl Call {
    /// The header `Idempotency-Key`: the same for all attempts in one direction.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        idempotency_key(&self.xid, self.branch, self.direction)
    }
}

/// The same for all attempts at a step in one direction.
#[must_use]
pub fn idempotency_key(xid: impl fmt::Display, branch: u32, direction: Direction) -> String {
    format!("{xid}-{branch}-{direction}")
}

/// The bytes of a plan's input or of a result, which are JSON or nothing.
#[must_use]
pub fn json(bytes: &[u8]) -> Value {
    match bytes {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
    }
}

/// What the status of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It cannot be done, and nothing was.
    CannotBe,
    /// It may work later.
    Later,
}

impl Verdict {
    /// Reads an HTTP status.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            409 => Self::CannotBe,
            _ => Self::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_json_of_the_guide() {
        let text = r#"{"xid":"0000026c8f400001","branch":4,"step":"mail","attempt":1,
            "direction":"run","input":null,"results":{"flight":571,"hotel":"room 12"}}"#;
        let call: Call = serde_json::from_str(text).expect("readable");
        assert_eq!(call.idempotency_key(), "0000026c8f400001-4-run");
        let written: Value = serde_json::to_value(&call).expect("written");
        assert_eq!(written, serde_json::from_str::<Value>(text).expect("JSON"));
        let back = Call {
            direction: Direction::Compensate,
            result: Some(Value::Null),
            ..call
        };
        assert_eq!(back.idempotency_key(), "0000026c8f400001-4-compensate");
        let written = serde_json::to_value(&back).expect("written");
        assert_eq!(written["direction"], "compensate");
        assert!(written.get("result").is_some_and(Value::is_null));
    }

    #[test]
    fn what_is_no_json_is_text() {
        assert_eq!(json(b""), Value::Null);
        assert_eq!(json(b"[1]"), serde_json::json!([1]));
        assert_eq!(json(b"\xffno"), Value::from("\u{fffd}no"));
    }

    #[test]
    fn statuses_are_read_as_the_guide_says() {
        for (status, verdict) in [
            (200, Verdict::Done),
            (204, Verdict::Done),
            (409, Verdict::CannotBe),
            (301, Verdict::Later),
            (400, Verdict::Later),
            (425, Verdict::Later),
            (503, Verdict::Later),
        ] {
            assert_eq!(Verdict::of_status(status), verdict, "{status}");
        }
    }
}

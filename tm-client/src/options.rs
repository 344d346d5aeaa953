//! What a transaction is begun with.

use std::{borrow::Cow, time::Duration};

use crate::{Error, limits};

/// What a transaction is begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Options {
    name: Cow<'static, str>,
    timeout: Duration,
}

impl Options {
    /// A transaction of this name, with the default time-out
    /// ([`limits::DEFAULT_TIMEOUT`]). People see the name in lists and logs; it
    /// says what is done, like `place-order`, not to whom.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            timeout: limits::DEFAULT_TIMEOUT,
        }
    }

    /// How long it may stay undecided; then the coordinator rolls it back. From
    /// [`limits::MIN_TIMEOUT`] to [`limits::MAX_TIMEOUT`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The checked time-out, as it travels.
    pub(crate) fn checked_timeout_ms(&self) -> Result<u32, Error> {
        check_name("the transaction's name", &self.name)?;
        let allowed = limits::MIN_TIMEOUT..=limits::MAX_TIMEOUT;
        let fits = allowed.contains(&self.timeout);
        fits.then(|| u32::try_from(self.timeout.as_millis()).ok())
            .flatten()
            .ok_or_else(|| Error::InvalidOption {
                option: "the transaction's time-out",
                problem: format!(
                    "{:?} is not within {:?} and {:?}",
                    self.timeout,
                    limits::MIN_TIMEOUT,
                    limits::MAX_TIMEOUT
                ),
            })
    }

    pub(crate) fn timeout_duration(&self) -> Duration {
        self.timeout
    }
}

pub(crate) fn check_name(option: &'static str, name: &str) -> Result<(), Error> {
    let problem = if name.is_empty() {
        "is empty; say what it is for".to_owned()
    } else if name.len() > limits::MAX_NAME_BYTES {
        format!(
            "has {} bytes, at most {} are allowed",
            name.len(),
            limits::MAX_NAME_BYTES
        )
    } else if name.chars().any(char::is_control) {
        "holds control characters; use plain text".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::InvalidOption { option, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold() {
        assert_eq!(
            Options::new("n").checked_timeout_ms().expect("default"),
            60_000
        );
        let cases = [
            (Options::new(""), "is empty"),
            (Options::new("x".repeat(129)), "129 bytes, at most 128"),
            (Options::new("a\nb"), "control characters"),
            (
                Options::new("n").timeout(Duration::ZERO),
                "0ns is not within",
            ),
            (
                Options::new("n").timeout(Duration::MAX),
                "is not within 1ms and 86400s",
            ),
        ];
        for (options, expected) in cases {
            let error = options.checked_timeout_ms().expect_err("out of bounds");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

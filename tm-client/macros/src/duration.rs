//! Reads a time-out like `30s`.

/// The longest that the client library takes: a day.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Milliseconds; a sentence for people when the text is no good time-out.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => {
            return Err(format!(
                "`{text}` is no time-out: write a whole number and a unit, \
                 like \"500ms\", \"30s\", \"5m\" or \"1h\""
            ));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|ms| (1..=MAX_MS).contains(ms))
        .ok_or_else(|| format!("the time-out `{text}` is not between 1ms and 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_texts() {
        for (text, ms) in [
            ("1ms", 1),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", MAX_MS),
        ] {
            assert_eq!(milliseconds(text), Ok(ms));
        }
        for text in ["", "30", "s", "1.5s", "-1s", "30 s", "30sec", "١s"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        for text in [
            "0s",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            let problem = milliseconds(text).expect_err("out of bounds");
            assert!(problem.contains("between 1ms and 24h"), "{problem}");
        }
    }
}

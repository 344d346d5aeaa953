//! The headers themselves.

use std::time::Duration;

use accede_proto::{ParseXidError, XID_HEADER, XID_HEADER_SEATA, Xid};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::context::TransactionContext;

/// The header that carries the time left before the transaction's deadline, in milliseconds.
pub const DEADLINE_HEADER: &str = "x-accede-deadline-ms";

const XID: HeaderName = HeaderName::from_static(XID_HEADER);
const XID_SEATA: HeaderName = HeaderName::from_static(XID_HEADER_SEATA);
const DEADLINE: HeaderName = HeaderName::from_static(DEADLINE_HEADER);

/// A request whose transaction headers cannot be read. The sender is at fault; a
/// retry of the same request does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The value is no XID.
    #[error(
        "header {header}: {reason}; send the XID that the caller's transaction has, or no such \
         header"
    )]
    Xid {
        /// The header that holds it.
        header: &'static str,
        /// What is wrong.
        reason: ParseXidError,
    },
    /// The value is no text at all.
    #[error("header {header} holds bytes that are no ASCII text; send 16 hex digits")]
    NotText {
        /// The header that holds it.
        header: &'static str,
    },
    /// The request names two transactions.
    #[error(
        "the request names two transactions, {first} and {second}: a proxy or client adds a \
         header where one is already set"
    )]
    TwoTransactions {
        /// The one read first.
        first: Xid,
        /// Another one.
        second: Xid,
    },
    /// The time left is no number.
    #[error(
        "header {DEADLINE_HEADER}: {value:?} is no number of milliseconds between 0 and 4294967295"
    )]
    Deadline {
        /// What was sent, cut after 40 characters.
        value: String,
    },
}

/// Adds the headers of `context`, replacing those that are there. Without a
/// context, or in that of a saga's step, which nobody can join, nothing is touched.
///
/// For clients that no layer of this module fits.
pub fn write(headers: &mut HeaderMap, context: Option<TransactionContext>) {
    let Some(context) = context.filter(|context| !context.is_step()) else {
        return;
    };
    let xid = HeaderValue::try_from(context.xid().to_string())
        .expect("an XID is shown as hex digits, all legal in a header");
    headers.insert(XID, xid);
    headers.remove(XID_SEATA);
    match context.remaining() {
        Some(remaining) => {
            let ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
            headers.insert(DEADLINE, HeaderValue::from(ms));
        }
        None => {
            headers.remove(DEADLINE);
        }
    }
}

/// Reads the context that a request came with; `None` if it is in no transaction.
///
/// For servers that no layer of this module fits.
///
/// # Errors
/// [`InvalidHeader`]: refuse the request, do not run it outside of its transaction.
pub fn read(headers: &HeaderMap) -> Result<Option<TransactionContext>, InvalidHeader> {
    let mut found: Option<Xid> = None;
    for (name, shown) in [(&XID, XID_HEADER), (&XID_SEATA, XID_HEADER_SEATA)] {
        for value in headers.get_all(name) {
            let xid = read_xid(shown, value)?;
            match found {
                Some(first) if first != xid => {
                    return Err(InvalidHeader::TwoTransactions { first, second: xid });
                }
                _ => found = Some(xid),
            }
        }
    }
    let Some(xid) = found else { return Ok(None) };
    let mut context = TransactionContext::new(xid);
    // The earliest of several is the safe one.
    let mut least: Option<u32> = None;
    for value in headers.get_all(DEADLINE) {
        let ms = read_deadline(value)?;
        least = Some(least.map_or(ms, |least| least.min(ms)));
    }
    if let Some(ms) = least {
        context = context.with_remaining(Duration::from_millis(u64::from(ms)));
    }
    Ok(Some(context))
}

fn read_xid(header: &'static str, value: &HeaderValue) -> Result<Xid, InvalidHeader> {
    let text = value
        .to_str()
        .map_err(|_| InvalidHeader::NotText { header })?;
    text.trim()
        .parse()
        .map_err(|reason| InvalidHeader::Xid { header, reason })
}

fn read_deadline(value: &HeaderValue) -> Result<u32, InvalidHeader> {
    let text = value.to_str().unwrap_or("(no text)").trim();
    // `parse` alone would take a leading plus sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| InvalidHeader::Deadline {
            value: text.chars().take(40).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "000c1f40a2e00001";

    type Pair<'a> = (&'static str, &'a [u8]);

    fn headers(pairs: &[Pair<'_>]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value).expect("legal bytes"),
            );
        }
        map
    }

    #[test]
    fn what_is_written_is_read() {
        let context = TransactionContext::new(ID.parse().expect("an XID"))
            .with_remaining(Duration::from_secs(9));
        let mut map = headers(&[("tx_xid", b"0000000000000001"), (XID_HEADER, b"stale")]);
        write(&mut map, Some(context));
        assert_eq!(map.get(XID_HEADER).expect("set"), ID);
        let back = read(&map).expect("valid").expect("in a transaction");
        assert_eq!(back.xid(), context.xid());
        let remaining = back.remaining().expect("the deadline travels");
        assert!(remaining <= Duration::from_secs(9) && remaining > Duration::from_secs(7));

        write(&mut map, Some(context.xid().into()));
        let back = read(&map).expect("valid").expect("in a transaction");
        assert_eq!(back.deadline(), None, "an old deadline does not stay");

        let mut untouched = headers(&[]);
        write(&mut untouched, None);
        let step = TransactionContext::of_step(context.xid());
        write(&mut untouched, Some(step));
        assert!(untouched.is_empty());
    }

    #[test]
    fn seatas_name_is_understood() {
        let xid = read(&headers(&[("tx_xid", ID.as_bytes())])).expect("valid");
        assert_eq!(
            xid.map(|context| context.xid().to_string()),
            Some(ID.into())
        );
        let both = [("tx_xid", ID.as_bytes()), (XID_HEADER, ID.as_bytes())];
        assert!(read(&headers(&both)).expect("the same twice").is_some());
        // A deadline without a transaction means nothing.
        assert_eq!(read(&headers(&[(DEADLINE_HEADER, b"x")])), Ok(None));
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        let cases: [(&[Pair<'_>], &str); 7] = [
            (&[(XID_HEADER, b"")], "16 hex digits"),
            (
                &[("tx_xid", b"192.168.0.1:8091:2612341069705662465")],
                "header tx_xid",
            ),
            (&[(XID_HEADER, b"\xff\xfe")], "no ASCII text"),
            (
                &[(XID_HEADER, ID.as_bytes()), ("tx_xid", b"0000000000000001")],
                "two transactions, 000c1f40a2e00001 and 0000000000000001",
            ),
            (
                &[(XID_HEADER, ID.as_bytes()), (DEADLINE_HEADER, b"-1")],
                "\"-1\" is no number of milliseconds",
            ),
            (
                &[(XID_HEADER, ID.as_bytes()), (DEADLINE_HEADER, b"+5")],
                "no number of milliseconds",
            ),
            (
                &[
                    (XID_HEADER, ID.as_bytes()),
                    (DEADLINE_HEADER, b"4294967296"),
                ],
                "between 0 and 4294967295",
            ),
        ];
        for (pairs, expected) in cases {
            let error = read(&headers(pairs)).expect_err("malformed").to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }
}

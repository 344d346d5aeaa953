//! The addresses of coordinators.

use tonic::transport::Endpoint;

use super::{SessionError, SessionLimits, limits};

/// One coordinator.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) text: String,
    pub(super) endpoint: Endpoint,
}

/// Checks a coordinator's address and completes it: `host:port` becomes `http://host:port`.
///
/// # Errors
/// [`SessionError::InvalidAddress`] names what is wrong.
pub fn normalize_address(address: &str) -> Result<String, SessionError> {
    let invalid = |reason: &str| SessionError::InvalidAddress {
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    let text = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let uri: tonic::transport::Uri = text.parse().map_err(|_| invalid("it is no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(invalid("only http:// is supported"));
    }
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(invalid("host and port are needed"));
    }
    if !matches!(uri.path(), "" | "/") {
        return Err(invalid("it must not have a path"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

pub(super) fn addresses(
    given: &[String],
    limits: &SessionLimits,
) -> Result<Vec<Address>, SessionError> {
    if given.is_empty() {
        return Err(SessionError::NoAddress);
    }
    given
        .iter()
        .map(|address| {
            let text = normalize_address(address)?;
            let endpoint = Endpoint::from_shared(text.clone())
                .map_err(|error| SessionError::InvalidAddress {
                    address: address.clone(),
                    reason: error.to_string(),
                })?
                .connect_timeout(limits.connect)
                .tcp_nodelay(true)
                .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
                .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
                .http2_keep_alive_interval(limits.keep_alive_interval)
                .keep_alive_timeout(limits.keep_alive_timeout)
                .keep_alive_while_idle(true);
            Ok(Address { text, endpoint })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_or_refused_with_a_reason() {
        assert_eq!(
            normalize_address("127.0.0.1:7700").expect("completed"),
            "http://127.0.0.1:7700"
        );
        assert_eq!(
            normalize_address("http://tc.example:7700/").expect("as it is"),
            "http://tc.example:7700"
        );
        for (bad, why) in [
            ("https://127.0.0.1:7700", "only http://"),
            ("127.0.0.1", "host and port"),
            ("http://:7700", "host and port"),
            ("http://host:7700/path", "path"),
            ("a b", "no URL"),
            ("", "no URL"),
        ] {
            let text = normalize_address(bad).expect_err(bad).to_string();
            assert!(text.contains(why), "{bad}: {text}");
        }
    }
}

//! Which URLs the coordinator may call: those below configured prefixes, and no others. Whoever
//! starts a saga would else have the coordinator call whatever it can reach.

use http::Uri;
use url::Url;

/// The configured prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed(Vec<Url>);

/// What can hide where a path leads.
const HIDDEN: [&str; 4] = ["%2e", "%2f", "%5c", "\\"];

impl Allowed {
    /// Reads prefixes; an error says what is wrong with which.
    pub(crate) fn read<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let prefixes = prefixes.into_iter().map(|text| {
            let url = parse(text).map_err(|why| format!("{text:?} {why}"))?;
            match url.query() {
                Some(_) => Err(format!("{text:?} has a query, which no prefix can have")),
                None => Ok(url),
            }
        });
        prefixes.collect::<Result<_, _>>().map(Self)
    }

    /// Whether services are called by TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        let mut schemes = self.0.iter().map(Url::scheme);
        schemes.any(|scheme| matches!(scheme, "https" | "grpcs"))
    }

    /// Whether a URL is below a prefix; if not, why, to follow the name of its step.
    pub(crate) fn check(&self, text: &str) -> Result<Url, String> {
        let url = parse(text).map_err(|why| format!("has the callback {text:?}, which {why}"))?;
        if self.0.iter().any(|prefix| is_below(&url, prefix)) {
            return Ok(url);
        }
        Err(match self.0.is_empty() {
            true => format!(
                "has the callback {text:?}, and this coordinator calls no URLs: add a prefix of it \
                 to its setting saga_callbacks"
            ),
            false => format!(
                "has the callback {text:?}, which is below no prefix in the coordinator's setting \
                 saga_callbacks"
            ),
        })
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let lower = text.to_ascii_lowercase();
    if HIDDEN.iter().any(|hidden| lower.contains(hidden)) {
        return Err("has an encoded dot or slash, or a backslash".to_owned());
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("has \".\" or \"..\" in its path".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let is_grpc = matches!(url.scheme(), "grpc" | "grpcs");
    if !is_grpc && !matches!(url.scheme(), "http" | "https") {
        return Err("begins with none of https://, http://, grpcs:// and grpc://".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user's name or password in it".to_owned());
    }
    if url.fragment().is_some() {
        return Err("has a fragment (#…)".to_owned());
    }
    if is_grpc && (url.port().is_none() || !matches!(url.path(), "" | "/")) {
        return Err("is not of the form grpc://host:port or grpcs://host:port".to_owned());
    }
    Uri::try_from(url.as_str()).map_err(|error| format!("cannot be called: {error}"))?;
    Ok(url)
}

fn is_below(url: &Url, prefix: &Url) -> bool {
    let place = |url: &Url| {
        let host = url.host_str().map(str::to_ascii_lowercase);
        (url.scheme().to_owned(), host, url.port_or_known_default())
    };
    let (path, base) = (url.path(), prefix.path().trim_end_matches('/'));
    let rest = path.strip_prefix(base);
    place(url) == place(prefix) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_a_prefix_is_called() {
        let allowed = Allowed::read([
            "http://127.0.0.1:8080/steps/",
            "http://Parcels.example/a",
            "grpc://h:50051",
            "https://parcels.example/tls/",
            "grpcs://h:50052",
        ]);
        let allowed = allowed.expect("sound");
        for url in [
            "http://127.0.0.1:8080/steps/book",
            "http://127.0.0.1:8080/steps/a/b?c=d",
            "http://parcels.example:80/a/b",
            "http://PARCELS.example/a",
            "grpc://h:50051",
            "grpc://h:50051/",
            "https://parcels.example:443/tls/a",
            "grpcs://h:50052",
        ] {
            assert!(allowed.check(url).is_ok(), "{url}");
        }
        for (url, why) in [
            ("http://127.0.0.1:8080/other", "below no prefix"),
            ("http://127.0.0.1:8080/stepsister", "below no prefix"),
            ("http://127.0.0.1:8081/steps/book", "below no prefix"),
            ("http://127.0.0.1/steps/book", "below no prefix"),
            ("http://127.0.0.2:8080/steps/book", "below no prefix"),
            ("grpc://h:50052", "below no prefix"),
            ("grpc://127.0.0.1:8080", "below no prefix"),
            ("http://127.0.0.1:8080/steps/../admin", "\"..\""),
            ("http://127.0.0.1:8080/steps/./book", "\"..\""),
            ("http://127.0.0.1:8080/steps/%2E%2e/admin", "encoded"),
            ("http://127.0.0.1:8080/steps/..%2Fadmin", "encoded"),
            ("http://127.0.0.1:8080\\@evil/", "backslash"),
            ("http://me:pw@127.0.0.1:8080/steps/", "password"),
            ("http://127.0.0.1:8080@evil.example/steps/", "user's name"),
            ("https://127.0.0.1:8080/steps/", "below no prefix"),
            ("http://parcels.example:443/tls/a", "below no prefix"),
            ("grpcs://h:50051", "below no prefix"),
            ("file:///etc/passwd", "none of https://"),
            ("http://127.0.0.1:8080/steps/#top", "fragment"),
            ("grpc://h", "host:port"),
            ("grpc://h:1/path", "host:port"),
            ("grpcs://h", "host:port"),
            ("steps", "no URL"),
        ] {
            let refused = allowed.check(url).expect_err(url);
            assert!(refused.contains(why), "{url}: {refused}");
        }
        for (prefix, tls) in [
            ("http://h/", false),
            ("grpcs://h:1", true),
            ("https://h/", true),
        ] {
            assert_eq!(Allowed::read([prefix]).expect("sound").uses_tls(), tls);
        }
        let none = Allowed::default().check("http://h/").expect_err("none");
        assert!(none.contains("calls no URLs"), "{none}");
        for prefix in ["http://h/?q", "ftp://h/", "http://u@h/"] {
            assert!(Allowed::read([prefix]).is_err(), "{prefix}");
        }
    }
}

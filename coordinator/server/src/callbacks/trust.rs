//! Whose certificates count when a URL is called by TLS: those that authorities of the system's have
//! signed, and those of the operator's own.

use std::{error::Error as StdError, io, path::Path, sync::Arc};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::limits::CALLBACK_CONNECT;

/// Connects to services, by TLS where the scheme is `https`.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// The authorities that count.
#[derive(Clone, Debug)]
pub(crate) struct Trust(ClientConfig);

impl Trust {
    /// Reads the certificates of the system's authorities, if any URL is called by TLS, and those of
    /// a file; an error says what is wrong with them.
    pub(crate) fn read(uses_tls: bool, file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if uses_tls {
            let found = rustls_native_certs::load_native_certs();
            // Some are too old to be read; what they have signed is refused.
            let (known, ignored) = roots.add_parsable_certificates(found.certs);
            tracing::debug!(known, ignored, problems = ?found.errors, "the system's authorities");
        }
        if let Some(file) = file {
            add(&mut roots, file)?;
        }
        if uses_tls && roots.is_empty() {
            return Err(
                "this system has no certificates of authorities, and without any no service \
                 can be called by https or grpcs; install them (on Debian the package \
                 ca-certificates), or name a file of them"
                    .to_owned(),
            );
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(Self(
            config.with_root_certificates(roots).with_no_client_auth(),
        ))
    }

    /// Connects for HTTP/1.
    pub(super) fn http(&self) -> Connector {
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.0.clone());
        connector
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp())
    }

    /// Connects for HTTP/2, which gRPC speaks.
    pub(super) fn grpc(&self) -> Connector {
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.0.clone());
        connector
            .https_or_http()
            .enable_http2()
            .wrap_connector(tcp())
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // It is below TLS, too.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CALLBACK_CONNECT));
    tcp
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("it cannot be read as PEM: {error}"));
    let certificates = certificates?;
    if certificates.is_empty() {
        return Err("it has no certificate (BEGIN CERTIFICATE) in it".to_owned());
    }
    for (number, certificate) in certificates.into_iter().enumerate() {
        let added = roots.add(certificate);
        added.map_err(|error| {
            let number = number + 1;
            format!("its certificate number {number} cannot be used: {error}")
        })?;
    }
    Ok(())
}

/// The innermost reason why a service was not reached, for people.
pub(super) fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    loop {
        if let Some(error) = innermost.downcast_ref::<rustls::Error>() {
            return of_tls(error);
        }
        let inner = match innermost.downcast_ref::<io::Error>() {
            // Its source is the source of what it holds.
            Some(error) => error
                .get_ref()
                .map(|held| held as &(dyn StdError + 'static)),
            None => innermost.source(),
        };
        match inner {
            Some(inner) => innermost = inner,
            None => return innermost.to_string(),
        }
    }
}

fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority that the coordinator trusts has signed its certificate; name a file with \
             the authority's certificate in the setting saga_callback_ca"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(problem) => format!("its certificate: {problem}"),
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, content).expect("written");
        Trust::read(false, Some(&file)).expect_err("refused")
    }

    #[test]
    fn a_file_that_holds_no_authority_is_refused() {
        let missing = Trust::read(false, Some(Path::new("/nowhere/ca.pem")));
        let missing = missing.expect_err("refused");
        assert!(missing.contains("cannot be read as PEM"), "{missing}");
        assert!(refused("hello").contains("has no certificate"));
        let torn = refused("-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert!(torn.contains("cannot be read as PEM"), "{torn}");
        let odd = refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(odd.contains("number 1 cannot be used"), "{odd}");
        assert!(Trust::read(false, None).is_ok(), "nothing is needed");
    }
}

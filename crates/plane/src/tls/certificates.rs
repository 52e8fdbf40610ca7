//! The certificates of the hosted domains: which one a connection gets is decided by the name it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::provider;

/// A general certificate and those of single domains.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    general: Option<Arc<CertifiedKey>>,
    by_domain: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// A copy in which `domain`, or everybody else when that is `None`, has this certificate.
    pub fn with(&self, domain: Option<&str>, certificate: CertifiedKey) -> Self {
        let mut copy = self.clone();
        match domain {
            Some(domain) => {
                copy.by_domain
                    .insert(domain.to_ascii_lowercase(), Arc::new(certificate));
            }
            None => copy.general = Some(Arc::new(certificate)),
        }
        copy
    }

    /// A copy in which `domain` has no certificate of its own.
    pub fn without(&self, domain: &str) -> Self {
        let mut copy = self.clone();
        copy.by_domain.remove(&domain.to_ascii_lowercase());
        copy
    }

    /// The certificate of a domain, or the general one.
    pub fn of(&self, domain: Option<&str>) -> Option<Arc<CertifiedKey>> {
        domain
            .and_then(|domain| self.by_domain.get(&domain.to_ascii_lowercase()))
            .or(self.general.as_ref())
            .cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name())
    }
}

/// Reads a chain (leaf first) and its private key.
///
/// # Errors
/// A plain sentence when either cannot be read or they do not belong together.
pub fn certificate_from_pem(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let certificates = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate chain is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("the certificate chain has no certificate".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the private key cannot be read: {error}"))?;
    CertifiedKey::from_der(certificates, key, provider())
        .map_err(|error| format!("the certificate and its key cannot be used: {error}"))
}

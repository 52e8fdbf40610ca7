//! Server-side TLS: what a certificate becomes, and what is told about a finished handshake.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, ServerConnection};

/// One certificate as the configurations its uses need; they differ in ALPN alone.
pub struct ServerTls {
    /// After STARTTLS: the protocol is agreed on already, so ALPN is not looked at.
    pub upgraded: Arc<ServerConfig>,
    /// From the first byte (XEP-0368): a client that names protocols must name `xmpp-client`.
    pub direct: Arc<ServerConfig>,
    /// Under HTTP, for WebSocket.
    pub http: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads a chain (leaf first) and its private key.
    ///
    /// # Errors
    /// A plain sentence when either cannot be read or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let certificates = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate chain is not valid PEM: {error}"))?;
        if certificates.is_empty() {
            return Err("the certificate chain has no certificate".into());
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the private key cannot be read: {error}"))?;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // AES-128 with SHA-256 costs least at a login and is strong enough; the rest keep their order.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let mut base = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| format!("the certificate and its key cannot be used: {error}"))?;
        // Tickets keep no state here, so that a flood of handshakes leaves nothing behind.
        base.ticketer =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| format!("no random numbers: {error}"))?;
        base.ignore_client_order = true;
        base.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        base.send_tls13_tickets = 1;
        let with_alpn = |names: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            upgraded: with_alpn(&[]),
            direct: with_alpn(&[b"xmpp-client"]),
            http: with_alpn(&[b"http/1.1"]),
        })
    }
}

/// What is known of a connection after its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
}

impl TlsInfo {
    /// Describes a connection whose handshake is complete.
    pub fn of(connection: &ServerConnection) -> Self {
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default()
                .replace("TLS13_", "TLS_"),
            sni: connection.server_name().map(str::to_owned),
            alpn: connection
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

/// The tls-exporter channel binding (RFC 9266). Only for TLS 1.3: below, it is unique only with the extended master
/// secret, which rustls does not report.
pub fn exporter(connection: &ServerConnection) -> Option<[u8; 32]> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection
        .export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(&[]))
        .ok()
}

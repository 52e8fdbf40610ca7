//! TLS: what certificates become, and what is told about a finished handshake.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, Connection, ProtocolVersion, ServerConfig, SupportedProtocolVersion};

mod certificates;
mod peers;

pub use certificates::{certificate_from_pem, Certificates};
pub use peers::client_config;

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Certificates of a peer that are told of, and their bytes; what goes beyond is not.
const MAX_CHAIN: usize = 10;
const MAX_CHAIN_BYTES: usize = 65_536;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // AES-128 with SHA-256 costs least at a login and is strong enough; the rest keep their order.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
});

fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// The certificates as the configurations that their uses need.
pub struct ServerTls {
    /// What the configurations choose from.
    pub certificates: Arc<Certificates>,
    /// After STARTTLS: the protocol is agreed on already, so ALPN is not looked at.
    pub upgraded: Arc<ServerConfig>,
    /// From the first byte (XEP-0368): a client that names protocols must name `xmpp-client`.
    pub direct: Arc<ServerConfig>,
    /// Under HTTP, for WebSocket.
    pub http: Arc<ServerConfig>,
    /// Another server, after STARTTLS: asked for a certificate.
    pub peer: Arc<ServerConfig>,
    /// Another server, from the first byte: one that names protocols must name `xmpp-server`.
    pub peer_direct: Arc<ServerConfig>,
}

impl ServerTls {
    /// Configurations that choose from these certificates.
    ///
    /// # Errors
    /// A plain sentence when TLS cannot be set up.
    pub fn new(certificates: Certificates) -> Result<Self, String> {
        let certificates = Arc::new(certificates);
        let builder = || {
            ServerConfig::builder_with_provider(provider().clone())
                .with_protocol_versions(VERSIONS)
                .map_err(|error| format!("TLS cannot be set up: {error}"))
        };
        let mut base = builder()?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        // Tickets keep no state here, so that a flood of handshakes leaves nothing behind.
        base.ticketer =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| format!("no random numbers: {error}"))?;
        base.ignore_client_order = true;
        base.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        base.send_tls13_tickets = 1;
        let mut peer = builder()?
            .with_client_cert_verifier(peers::AnyPeer::new())
            .with_cert_resolver(certificates.clone());
        // No tickets: every connection shows its certificates anew.
        peer.ignore_client_order = true;
        peer.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        peer.send_tls13_tickets = 0;
        let with_alpn = |base: &ServerConfig, names: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            certificates,
            upgraded: with_alpn(&base, &[]),
            direct: with_alpn(&base, &[b"xmpp-client"]),
            http: with_alpn(&base, &[b"http/1.1"]),
            peer: with_alpn(&peer, &[]),
            peer_direct: with_alpn(&peer, &[peers::ALPN]),
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
    /// The certificates that the peer showed, in DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

impl TlsInfo {
    /// Describes a connection whose handshake is complete.
    pub fn of(connection: &Connection) -> Self {
        let mut room = MAX_CHAIN_BYTES;
        let chain = connection
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .take(MAX_CHAIN);
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
            sni: match connection {
                Connection::Server(server) => server.server_name().map(str::to_owned),
                Connection::Client(_) => None,
            },
            alpn: connection
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            chain: chain
                .map_while(|certificate| {
                    room = room.checked_sub(certificate.len())?;
                    Some(certificate.to_vec())
                })
                .collect(),
        }
    }
}

/// The tls-exporter channel binding (RFC 9266). Only for TLS 1.3: below, it is unique only with the extended master
/// secret, which rustls does not report.
pub fn exporter(connection: &Connection) -> Option<[u8; 32]> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection
        .export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(&[]))
        .ok()
}

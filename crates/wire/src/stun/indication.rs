//! The two forms of relayed data, framed in place around a payload so that no byte of it is moved.

use super::attribute::{kind, Family};
use super::message::be16;
use super::{message_type, Class, Method, TransactionId, HEADER, MAGIC_COOKIE};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Bytes of a ChannelData header.
pub const CHANNEL_HEADER: usize = 4;
/// Room that [`put_data_indication`] may need in front of a payload: header, IPv6 peer address, DATA header.
pub const HEADROOM: usize = HEADER + 24 + 4;
/// Room for padding behind a payload.
pub const TAILROOM: usize = 3;

/// Reads a ChannelData message (RFC 8656 section 12.4): the channel and where its payload lies.
///
/// None when the first bits are not 01, or the datagram is shorter than its length field says.
pub fn channel_data(datagram: &[u8]) -> Option<(u16, Range<usize>)> {
    if datagram.len() < CHANNEL_HEADER || datagram[0] & 0xC0 != 0x40 {
        return None;
    }
    let end = CHANNEL_HEADER + usize::from(be16(datagram, 2));
    (end <= datagram.len()).then(|| (be16(datagram, 0), CHANNEL_HEADER..end))
}

/// Frames `payload` of `buffer` as ChannelData; with `pad` up to a multiple of four, as streams need it.
///
/// Returns where the message lies. The payload needs [`CHANNEL_HEADER`] bytes before it and [`TAILROOM`] behind.
pub fn put_channel_header(buffer: &mut [u8], payload: Range<usize>, channel: u16, pad: bool) -> Range<usize> {
    let start = payload.start - CHANNEL_HEADER;
    buffer[start..start + 2].copy_from_slice(&channel.to_be_bytes());
    buffer[start + 2..start + 4].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    let end = if pad {
        payload.start + payload.len().next_multiple_of(4)
    } else {
        payload.end
    };
    buffer[payload.end..end].fill(0);
    start..end
}

/// Frames `payload` of `buffer` as a Data indication (RFC 8656 section 11.3) with XOR-PEER-ADDRESS and DATA.
///
/// Returns where the message lies. The payload needs [`HEADROOM`] bytes before it and [`TAILROOM`] behind, and must
/// be short enough for one STUN message, which anything that came in one UDP datagram over IPv4 may not be: None then.
pub fn put_data_indication(
    buffer: &mut [u8],
    payload: Range<usize>,
    peer: SocketAddr,
    transaction: &TransactionId,
) -> Option<Range<usize>> {
    let address = if peer.is_ipv4() { 8 } else { 20 };
    let start = payload.start - (HEADER + 4 + address + 4);
    let end = payload.start + payload.len().next_multiple_of(4);
    let length = u16::try_from(end - start - HEADER).ok()?;
    let head = &mut buffer[start..payload.start];
    head[0..2].copy_from_slice(&message_type(Class::Indication, Method::DATA).to_be_bytes());
    head[2..4].copy_from_slice(&length.to_be_bytes());
    head[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    head[8..20].copy_from_slice(transaction);
    head[20..22].copy_from_slice(&kind::XOR_PEER_ADDRESS.to_be_bytes());
    head[22..24].copy_from_slice(&(address as u16).to_be_bytes());
    head[24] = 0;
    head[25] = if Family::of(peer.ip()) == Family::V4 { 1 } else { 2 };
    head[26..28].copy_from_slice(&(peer.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes());
    let after = 24 + address;
    match peer.ip() {
        IpAddr::V4(ip) => head[28..after].copy_from_slice(&(ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes()),
        IpAddr::V6(ip) => {
            let mut masked = ip.octets();
            for (byte, mask) in masked
                .iter_mut()
                .zip(MAGIC_COOKIE.to_be_bytes().iter().chain(transaction))
            {
                *byte ^= mask;
            }
            head[28..after].copy_from_slice(&masked);
        }
    }
    head[after..after + 2].copy_from_slice(&kind::DATA.to_be_bytes());
    head[after + 2..after + 4].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    buffer[payload.end..end].fill(0);
    Some(start..end)
}

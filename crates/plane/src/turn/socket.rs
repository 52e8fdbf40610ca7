//! UDP sockets as the TURN engine needs them: bound in groups, without path MTU discovery, with large buffers.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A non-blocking UDP socket bound to `address`; `group` lets others bind it too (SO_REUSEPORT).
pub fn bind(address: SocketAddr, group: bool, buffer: libc::c_int) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before it becomes an owned descriptor.
    let socket = unsafe {
        let fd = libc::socket(family, kind, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let fd = socket.as_raw_fd();
    if address.is_ipv6() {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    if group {
        join_group(fd)?;
    }
    dont_fragment(fd, address.is_ipv4(), false)?;
    enlarge(fd, buffer);
    let (storage, length) = to_raw(address);
    // SAFETY: storage is a valid address of `length` bytes.
    if unsafe { libc::bind(fd, (&raw const storage).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Lets further sockets of this process share the address; the kernel deals clients out by a hash of the 4-tuple.
pub fn join_group(fd: RawFd) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Sets or clears DF on what is sent from now on. Clear is the rule: a relay must not learn path MTUs.
pub fn dont_fragment(fd: RawFd, v4: bool, on: bool) -> io::Result<()> {
    if v4 {
        let value = if on {
            libc::IP_PMTUDISC_PROBE
        } else {
            libc::IP_PMTUDISC_DONT
        };
        set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
    } else {
        let value = if on {
            libc::IPV6_PMTUDISC_PROBE
        } else {
            libc::IPV6_PMTUDISC_DONT
        };
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
    }
}

/// Asks for kernel buffers of this size; beyond the system's limit with the privilege to do so, else up to it.
fn enlarge(fd: RawFd, bytes: libc::c_int) {
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        if set(fd, libc::SOL_SOCKET, force, bytes).is_err() {
            // Smaller buffers than asked for are no reason to fail.
            let _ = set(fd, libc::SOL_SOCKET, plain, bytes);
        }
    }
}

fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value is a c_int of the given size.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address a socket is bound to.
pub fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage; getsockname writes at most `length` bytes into it.
    let storage = unsafe {
        let mut storage: libc::sockaddr_storage = zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        if libc::getsockname(fd, (&raw mut storage).cast(), &mut length) < 0 {
            return Err(io::Error::last_os_error());
        }
        storage
    };
    from_raw(&storage).ok_or_else(|| io::Error::other("the socket has no IP address"))
}

/// The kernel's form of an address, and its length.
pub fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = put_raw(&mut storage, address);
    (storage, length)
}

/// Writes an address over whatever stood there; gives its length.
pub fn put_raw(storage: &mut libc::sockaddr_storage, address: SocketAddr) -> libc::socklen_t {
    let place: *mut libc::sockaddr_storage = storage;
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: sockaddr_storage is large and aligned enough for every address type.
            let raw = unsafe { &mut *place.cast::<libc::sockaddr_in>() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = address.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let raw = unsafe { &mut *place.cast::<libc::sockaddr_in6>() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = address.port().to_be();
            raw.sin6_flowinfo = 0;
            raw.sin6_addr.s6_addr = address.ip().octets();
            raw.sin6_scope_id = address.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// The reverse; None for anything that is not an IP address.
pub fn from_raw(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let place: *const libc::sockaddr_storage = storage;
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what the storage holds; it is large and aligned enough.
            let raw = unsafe { &*place.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*place.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Every address of this machine's interfaces. Empty when the system does not say.
pub fn interface_addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills `list` with a chain that stays valid until freeifaddrs.
    unsafe {
        if libc::getifaddrs(&mut list) != 0 {
            return found;
        }
        let mut entry = list;
        while let Some(interface) = entry.as_ref() {
            let address = interface.ifa_addr;
            let size = match address.as_ref().map(|raw| libc::c_int::from(raw.sa_family)) {
                Some(libc::AF_INET) => size_of::<libc::sockaddr_in>(),
                Some(libc::AF_INET6) => size_of::<libc::sockaddr_in6>(),
                _ => 0,
            };
            let mut storage: libc::sockaddr_storage = zeroed();
            std::ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut storage).cast(), size);
            found.extend(from_raw(&storage).map(|address| address.ip()));
            entry = interface.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    found
}

/// Raises the limit on open descriptors as far as the system allows: every relay is one.
pub fn raise_descriptor_limit() {
    // SAFETY: both calls take a valid rlimit.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Secret random bytes.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // SAFETY: the buffer is 32 bytes long; reads of up to 256 bytes are never cut short once the pool is ready.
    match unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
        32 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_form() {
        for text in ["192.0.2.1:5000", "[2001:db8::1]:5000", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_raw(&to_raw(address).0), Some(address));
        }
    }

    #[test]
    fn a_group_shares_a_port_and_keeps_strangers_out() {
        let first = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 16).unwrap();
        let address = local_address(first.as_raw_fd()).unwrap();
        join_group(first.as_raw_fd()).unwrap();
        let second = bind(address, true, 1 << 16).unwrap();
        assert_eq!(local_address(second.as_raw_fd()).unwrap(), address);
        let stranger = bind(address, false, 1 << 16).unwrap_err();
        assert_eq!(stranger.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn dont_fragment_is_set_and_cleared() {
        for (address, level, name, off, on) in [
            (
                "127.0.0.1:0",
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DONT,
                libc::IP_PMTUDISC_PROBE,
            ),
            (
                "[::1]:0",
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DONT,
                libc::IPV6_PMTUDISC_PROBE,
            ),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let Ok(socket) = bind(address, false, 1 << 16) else {
                assert!(address.is_ipv6(), "only IPv6 may be missing");
                continue;
            };
            let value = || {
                let mut value: libc::c_int = -1;
                let mut size = size_of::<libc::c_int>() as libc::socklen_t;
                // SAFETY: both pointers lead to live values of the right size.
                let result =
                    unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut size) };
                assert_eq!(result, 0);
                value
            };
            assert_eq!(value(), off);
            dont_fragment(socket.as_raw_fd(), address.is_ipv4(), true).unwrap();
            assert_eq!(value(), on);
            dont_fragment(socket.as_raw_fd(), address.is_ipv4(), false).unwrap();
            assert_eq!(value(), off);
        }
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(interface_addresses().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}

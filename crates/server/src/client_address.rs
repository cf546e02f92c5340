//! Whose request it is: by the connection, or by what proxies say of those before them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header in which each proxy adds the address that it was asked from.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of whoever asks, on a connection from `peer`. What the header says is believed from
/// its end on, as long as whoever said it is trusted: anybody can send any beginning of it.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut address = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let said = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for text in said {
        if !is_trusted(address) {
            break;
        }
        // What cannot be read came through the last one that is known.
        let Some(before) = parse(text.trim()) else { break };
        address = before;
    }
    address
}

/// What counts as one address: of IPv6 the network, in which anybody has as many as they like.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// Whether the request came through somebody else, as far as is said.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    [FORWARDED_FOR, "forwarded", "x-real-ip"].iter().any(|name| headers.contains_key(*name))
}

/// An address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    Some(bare.parse().ok().or_else(with_port)?.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn address_of(peer: &str, lines: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted: Vec<_> = trusted.iter().map(|it| it.parse().expect("a network")).collect();
        client_address(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        let [proxy, other] = ["10.0.0.1", "192.0.2.9"];
        for trusted in [&[][..], &["10.0.0.0/8"]] {
            assert_eq!(address_of(other, &["198.51.100.1"], trusted), other);
        }
        assert_eq!(address_of(proxy, &["198.51.100.1"], &[]), proxy);
        assert_eq!(address_of(proxy, &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(address_of(proxy, &[], &["10.0.0.0/8"]), proxy);
    }

    #[test]
    fn what_is_said_is_believed_from_the_end_on() {
        let of = |lines: &[&'static str]| address_of("10.0.0.1", lines, &["10.0.0.0/8"]);
        assert_eq!(of(&["127.0.0.1, 198.51.100.1"]), "198.51.100.1", "the beginning is forged");
        assert_eq!(of(&["198.51.100.1,10.0.0.3 , 10.0.0.2"]), "198.51.100.1");
        assert_eq!(of(&["127.0.0.1", "198.51.100.1, 10.0.0.2"]), "198.51.100.1", "two lines");
        assert_eq!(of(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all are trusted");
        assert_eq!(of(&["198.51.100.1, sesame, 10.0.0.2"]), "10.0.0.2");
        for odd in ["", ",", "unknown", "_hidden", "198.51.100.1.5", "caf\u{e9}"] {
            let mut headers = HeaderMap::new();
            headers.append(FORWARDED_FOR, HeaderValue::from_str(odd).expect("a value"));
            let trusted = ["10.0.0.0/8".parse().expect("a network")];
            let address = client_address([10, 0, 0, 1].into(), &headers, &trusted);
            assert_eq!(address.to_string(), "10.0.0.1", "{odd}");
        }
    }

    #[test]
    fn an_address_may_have_a_port_and_either_form() {
        let of = |text| address_of("::ffff:10.0.0.1", &[text], &["10.0.0.0/8"]);
        assert_eq!(of("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(of("::ffff:198.51.100.1"), "198.51.100.1");
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711"] {
            assert_eq!(of(text), "2001:db8::1");
        }
    }
}

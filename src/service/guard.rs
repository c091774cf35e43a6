//! Keeps the pages of a browser away from the control API: any of them can send a request to this machine, under a name
//! that its own server makes point here. Programs, which send none of a browser's headers, are not concerned.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::uri::Authority;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is let through.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The name that the address was asked for by, if a request's `Host` must be this machine.
    here: Option<String>,
}

impl Guard {
    /// For an address that was asked for as `name`. A token proves more than a name does.
    pub fn new(address: IpAddr, name: &str, token: bool) -> Self {
        Self { here: (address.is_loopback() && !token).then(|| name.to_ascii_lowercase()) }
    }

    /// Why a request is refused, if it is.
    pub fn refuses(&self, request: &Request) -> Option<String> {
        let header =
            |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = header(header::HOST).or(request.uri().authority().map(Authority::as_str));
        let host = host.map(str::to_ascii_lowercase);
        if let (Some(here), Some(host)) = (&self.here, &host) {
            let name = name_of(host);
            let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            let loopback = literal.is_ok_and(|address| address.is_loopback());
            if name != "localhost" && name != here && !loopback {
                return Some(
                    "forbidden: Host is not localhost; use that name, or --auth-token-file".to_owned(),
                );
            }
        }
        if let Some(origin) = header(header::ORIGIN) {
            let origin = origin.to_ascii_lowercase();
            let same = origin
                .split_once("://")
                .is_some_and(|(scheme, from)| host.as_deref().is_some_and(|host| same(scheme, from, host)));
            if !same {
                return Some("forbidden: the request comes from a page of another Origin".to_owned());
            }
        }
        match header(FETCH_SITE) {
            None | Some("none" | "same-origin") => None,
            Some(_) => {
                Some("forbidden: the request comes from a page of another site (Sec-Fetch-Site)".to_owned())
            }
        }
    }
}

/// `host:port` without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !unbracketed(name) => name,
        _ => host,
    }
}

fn unbracketed(name: &str) -> bool {
    name.contains(':') && !name.ends_with(']')
}

/// A browser leaves out the port that belongs to the scheme.
fn same(scheme: &str, origin: &str, host: &str) -> bool {
    let default = if scheme == "https" { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_owned();
    bare(origin) == bare(host)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use axum::body::Body;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/start");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn refused(guard: &Guard, headers: &[(&str, &str)]) -> bool {
        guard.refuses(&request(headers)).is_some()
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_programs_are_not() {
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), "localhost", false);
        for headers in [
            &[][..],
            &[("host", "localhost:2242")],
            &[("host", "LOCALHOST")],
            &[("host", "127.0.0.1:2242")],
            &[("host", "[::1]:2242")],
            &[("host", "[::1]")],
            &[("host", "localhost:2242"), ("origin", "http://localhost:2242")],
            &[("host", "localhost"), ("origin", "http://localhost:80")],
            &[("host", "localhost:2242"), ("sec-fetch-site", "same-origin")],
            &[("host", "localhost:2242"), ("sec-fetch-site", "none")],
        ] {
            assert!(!refused(&guard, headers), "{headers:?}");
        }
        for headers in [
            &[("host", "evil.example:2242")][..],
            &[("host", "evil.example")],
            &[("host", "localhost.evil.example:2242")],
            &[("host", "10.0.0.1:2242")],
            &[("host", "evil.example:2242"), ("origin", "http://evil.example:2242")],
            &[("host", "localhost:2242"), ("origin", "http://evil.example")],
            &[("host", "localhost:2242"), ("origin", "http://localhost:3000")],
            &[("host", "localhost:2242"), ("origin", "null")],
            &[("origin", "http://localhost:2242")],
            &[("host", "localhost:2242"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:2242"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(refused(&guard, headers), "{headers:?}");
        }
    }

    #[test]
    fn any_name_goes_where_it_was_asked_for_or_a_token_proves() {
        let elsewhere = [("host", "sync.example:2242")];
        assert!(!refused(&Guard::new(Ipv4Addr::UNSPECIFIED.into(), "0.0.0.0", false), &elsewhere));
        assert!(!refused(&Guard::new(Ipv4Addr::LOCALHOST.into(), "localhost", true), &elsewhere));
        assert!(!refused(&Guard::new(Ipv6Addr::LOCALHOST.into(), "Sync.example", false), &elsewhere));
        assert!(refused(&Guard::new(Ipv6Addr::LOCALHOST.into(), "::1", false), &elsewhere));
        let page = [("host", "sync.example"), ("origin", "https://evil.example")];
        assert!(refused(&Guard::new(Ipv4Addr::LOCALHOST.into(), "localhost", true), &page));
    }
}

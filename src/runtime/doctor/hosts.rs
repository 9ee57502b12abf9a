// SPDX-License-Identifier: Apache-2.0
//! Whom a deployment talks to, held against the addresses that the unit which starts it lets through (`IPAddressAllow=`,
//! `IPAddressDeny=`; systemd.resource-control(5)): the doctor is not kept to them. An address that is kept out is bad; a name
//! has no address before it is looked up, so it is a warning, and only where nothing beyond this machine is let through.
//! Lists of slices above the unit are not read.

use super::unit::Unit;
use super::{Finding, Verdict, cameras, sandbox};
use crate::config::camera::CameraSource;
use crate::config::{Config, EngineKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses whose first `bits` are those of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    of: IpAddr,
    bits: u32,
}

impl Network {
    /// What a word of the lists stands for; none for what systemd passes over.
    fn of_word(word: &str) -> Vec<Network> {
        let networks = match word {
            "any" => "0.0.0.0/0 ::/0",
            "localhost" => "127.0.0.0/8 ::1/128",
            "link-local" => "169.254.0.0/16 fe80::/64",
            "multicast" => "224.0.0.0/4 ff00::/8",
            network => network,
        };
        let networks = networks.split_whitespace();
        networks.filter_map(Network::of_address).collect()
    }

    /// An address with a number of bits, or without one for all of them.
    fn of_address(text: &str) -> Option<Network> {
        let (of, bits) = match text.split_once('/') {
            Some((of, bits)) => (of, Some(bits)),
            None => (text, None),
        };
        let of: IpAddr = of.parse().ok()?;
        let most = if of.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok()?,
            None => most,
        };
        (bits <= most).then_some(Network { of, bits })
    }

    fn holds(&self, ip: IpAddr) -> bool {
        match (self.of, ip) {
            (IpAddr::V4(of), IpAddr::V4(ip)) => {
                (of.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(of), IpAddr::V6(ip)) => {
                (of.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether each of its addresses is this machine's own.
    fn is_loopback(&self) -> bool {
        let bits = if self.of.is_ipv4() { 8 } else { 128 };
        self.of.is_loopback() && self.bits >= bits
    }
}

/// The two lists of a unit.
#[derive(Debug)]
struct Filter {
    allowed: Vec<Network>,
    denied: Vec<Network>,
}

impl Filter {
    fn of(unit: &Unit) -> Filter {
        let list = |key: &str| -> Vec<Network> {
            let lines = unit.values(key);
            let words = lines.iter().flat_map(|line| line.split_whitespace());
            words.flat_map(Network::of_word).collect()
        };
        Filter {
            allowed: list("IPAddressAllow"),
            denied: list("IPAddressDeny"),
        }
    }

    /// What is in the list of those allowed is let through, whatever the other list says; what is in none is too.
    fn lets(&self, ip: IpAddr) -> bool {
        let is_in = |list: &[Network]| list.iter().any(|network| network.holds(ip));
        is_in(&self.allowed) || !is_in(&self.denied)
    }

    /// Whether it lets any address through that is not this machine's own.
    fn lets_out(&self) -> bool {
        let denies_all = |ip: IpAddr| {
            let mut denied = self.denied.iter();
            denied.any(|network| network.bits == 0 && network.holds(ip))
        };
        let closed =
            denies_all(Ipv4Addr::UNSPECIFIED.into()) && denies_all(Ipv6Addr::UNSPECIFIED.into());
        !closed || self.allowed.iter().any(|network| !network.is_loopback())
    }
}

/// An end of a connection, as it is written.
#[derive(Debug)]
enum Host {
    Address(IpAddr),
    Name,
}

impl Host {
    /// Of `192.168.1.30`, `[fd00::2]` or `gpu-box`.
    fn of(text: &str) -> Host {
        let text = text.trim_matches(['[', ']']);
        // The interface of a link-local address stands after it: "fe80::1%eth0".
        let text = text.split('%').next().unwrap_or_default();
        match text.parse::<IpAddr>() {
            Ok(ip) => Host::Address(ip.to_canonical()),
            Err(_) if text.eq_ignore_ascii_case("localhost") => {
                Host::Address(Ipv4Addr::LOCALHOST.into())
            }
            Err(_) => Host::Name,
        }
    }

    /// Of `tcp/192.168.1.30:7447`.
    fn of_endpoint(endpoint: &str) -> Host {
        let address = endpoint
            .split_once('/')
            .map_or(endpoint, |(_, address)| address);
        Host::of(address.rsplit_once(':').map_or(address, |(host, _)| host))
    }
}

/// Hosts of the URLs in a pipeline's text; a file's has none.
fn of_pipeline(text: &str) -> Vec<&str> {
    let ends = |c: char| c.is_whitespace() || "/?#!\"'".contains(c);
    let hosts = text.split("://").skip(1).map(|rest| {
        let authority = rest.split(ends).next().unwrap_or_default();
        // "user:password@host:port"
        let host = authority.rsplit('@').next().unwrap_or_default();
        match host.split_once(']') {
            Some((address, _)) => address.trim_start_matches('['),
            None => host.split(':').next().unwrap_or_default(),
        }
    });
    hosts.filter(|host| !host.is_empty()).collect()
}

/// Somebody whom the deployment looks for.
struct Far {
    /// As tendon.toml has it.
    what: String,
    host: Host,
    /// How bad it is if nobody is found there.
    worst: Verdict,
}

fn looked_for(config: &Config) -> Vec<Far> {
    let mut all = Vec::new();
    if let Some(endpoint) = &config.link.connect {
        all.push(Far {
            what: format!("link.connect {endpoint}"),
            host: Host::of_endpoint(endpoint),
            worst: Verdict::Bad,
        });
    }
    let remote = config.policy.remote.as_ref();
    if let Some(endpoint) = remote.and_then(|remote| remote.link.connect.as_ref()) {
        all.push(Far {
            what: format!("policy.remote {endpoint}"),
            host: Host::of_endpoint(endpoint),
            worst: sandbox::without(&config.policy, EngineKind::Remote),
        });
    }
    for camera in config.cameras() {
        if let CameraSource::Gstreamer(pipeline) = &camera.source {
            all.extend(of_pipeline(pipeline).into_iter().map(|host| Far {
                what: format!("camera \"{}\" at {host}", camera.name),
                host: Host::of(host),
                worst: cameras::worst(camera),
            }));
        }
    }
    all
}

/// Who may come to `link.listen`, by the address that it is.
fn awaited(endpoint: &str, filter: &Filter) -> Option<(Verdict, String)> {
    let what = format!("link.listen {endpoint}");
    let (verdict, why) = match Host::of_endpoint(endpoint) {
        Host::Address(ip) if ip.is_unspecified() && filter.lets_out() => return None,
        Host::Name if filter.lets_out() => return None,
        Host::Address(ip) if ip.is_unspecified() => {
            (Verdict::Warning, "nobody beyond this machine is let in")
        }
        Host::Name => (Verdict::Warning, "nobody beyond this machine is let in"),
        Host::Address(ip) if filter.lets(ip) => return None,
        Host::Address(ip) if ip.is_loopback() || !filter.lets_out() => {
            (Verdict::Bad, "nobody is let in")
        }
        // Who comes is mostly of the same network; not if a router is between.
        Host::Address(_) => (
            Verdict::Warning,
            "of none of the networks that are let through",
        ),
    };
    Some((verdict, format!("{what}: {why}")))
}

/// Whether the unit lets the deployment talk to those whom it looks for, and these to it.
pub(super) fn finding(config: &Config, unit: &Unit) -> Finding {
    const CHECK: &str = "unit: network";
    let filter = Filter::of(unit);
    let (mut wrong, mut addresses, mut names) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(endpoint) = &config.link.listen {
        wrong.extend(awaited(endpoint, &filter));
    }
    for Far { what, host, worst } in looked_for(config) {
        match host {
            Host::Address(ip) => {
                // Who connects to no address in particular connects to this machine.
                let ip: IpAddr = match ip.is_unspecified() {
                    true => Ipv4Addr::LOCALHOST.into(),
                    false => ip,
                };
                if !filter.lets(ip) {
                    wrong.push((worst, format!("{what} is kept out")));
                    addresses.push(ip.to_string());
                }
            }
            Host::Name if filter.lets_out() => names.push(what),
            Host::Name => {
                let why = "a name, and no address beyond this machine is let through";
                wrong.push((Verdict::Warning, format!("{what}: {why}")));
            }
        }
    }
    if wrong.is_empty() {
        let unjudged = match names.is_empty() {
            true => String::new(),
            false => format!("; not judged, as it is a name: {}", names.join(", ")),
        };
        let found = format!(
            "{} lets through what the deployment talks to{unjudged}",
            unit.name
        );
        return Finding::good(CHECK, found);
    }
    let (verdicts, words): (Vec<Verdict>, Vec<String>) = wrong.into_iter().unzip();
    let allow = match addresses.is_empty() {
        true => "IPAddressAllow= with the network of the other end".to_owned(),
        false => format!("IPAddressAllow={}", addresses.join(" ")),
    };
    Finding {
        verdict: verdicts.into_iter().max().unwrap_or(Verdict::Warning),
        ..Finding::warning(
            CHECK,
            format!("{} (IPAddressDeny=): {}", unit.name, words.join("; ")),
            format!(
                "{allow} in /etc/systemd/system/{}.d/network.conf, as systemd/tendon.service.d/network.conf shows; then systemctl daemon-reload",
                unit.name
            ),
        )
    }
}

//! A name server on loopback that knows one `mongodb+srv` name. Its port is 53, since a resolver file names no other:
//! only root can start it, and make a process use it.

use std::net::UdpSocket;
use std::path::Path;

use super::process::Folder;

pub const CLUSTER: &str = "cluster0.lab.example";
pub const HOST: &str = "member0.lab.example";

const A: u16 = 1;
const TXT: u16 = 16;
const SRV: u16 = 33;

/// Whether this process may do what the stub needs.
pub fn possible() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// Answers for the rest of this process's life.
pub struct Dns {
    folder: Folder,
}

impl Dns {
    /// `_mongodb._tcp.CLUSTER` is `HOST:port`, its options are `txt`, and `HOST` is loopback.
    pub fn start(port: u16, txt: &str) -> Self {
        let [high, low] = port.to_be_bytes();
        let address = format!("127.53.{high}.{low}");
        let socket = UdpSocket::bind((address.as_str(), 53)).unwrap();
        let txt = txt.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                if let Some(reply) = answer(&buffer[..length], port, &txt) {
                    let _ = socket.send_to(&reply, client);
                }
            }
        });
        let folder = Folder::new("dns");
        std::fs::write(folder.0.join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
        Self { folder }
    }

    /// A program and arguments that run `program` with `args`, which then asks this server.
    pub fn wrap(&self, program: &Path, args: &[String]) -> (&'static str, Vec<String>) {
        let resolver = self.folder.0.join("resolv.conf").display().to_string();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let before = ["--mount", "sh", "-c", script, &resolver, &program.display().to_string()];
        ("/usr/bin/unshare", before.map(str::to_owned).into_iter().chain(args.iter().cloned()).collect())
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn answer(query: &[u8], port: u16, txt: &str) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let end = question.iter().position(|&byte| byte == 0)? + 1;
    let (name, kind) = (&question[..end], u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]));
    let known = |text: &str| name.eq_ignore_ascii_case(&labels(text));
    let data = match kind {
        SRV if known(&format!("_mongodb._tcp.{CLUSTER}")) => {
            let mut data = [0_u16, 0, port].map(u16::to_be_bytes).concat();
            data.extend(labels(HOST));
            Some(data)
        }
        TXT if known(CLUSTER) => Some([&[txt.len() as u8], txt.as_bytes()].concat()),
        A if known(HOST) => Some(vec![127, 0, 0, 1]),
        _ => None,
    };
    let exists = data.is_some() || known(HOST) || known(CLUSTER);
    let mut reply = query[..2].to_vec();
    reply.extend([0x85, if exists { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    reply.extend(&question[..end + 4]);
    if let Some(data) = data {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

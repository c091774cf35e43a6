//! A replica set as careful people run it: TLS required, access control on, users by password and by certificate.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, Tls, TlsOptions};

use super::mongod::{Options, ReplicaSet};
use super::process::Folder;

pub const PASSWORD: &str = "correct-horse";

/// Of the client certificate's key in [`Authority::encrypted_key`].
pub const KEY_PASSWORD: &str = "battery-staple";

/// The client certificate's subject, as users in `$external` are named.
pub const SUBJECT: &str = "CN=syncer,OU=apps,O=lab";

/// A private certificate authority, a server's certificate and a client's.
pub struct Authority {
    folder: Folder,
}

impl Authority {
    /// `hosts` are the names, besides loopback, that the server's certificate is for.
    pub fn new(name: &str, hosts: &[&str]) -> Self {
        let authority = Self { folder: Folder::new(name) };
        let subject = format!("/CN={name}");
        authority.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj {subject}"
        ));
        let hosts: String = hosts.iter().map(|host| format!(",DNS:{host}")).collect();
        std::fs::write(authority.path("server.ext"), format!("subjectAltName=IP:127.0.0.1{hosts}")).unwrap();
        std::fs::write(authority.path("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
        authority.sign("server", "/CN=mongod");
        authority.sign("client", "/O=lab/OU=apps/CN=syncer");
        authority.openssl(&format!(
            "pkcs8 -topk8 -in client.key -out client.enc.key -passout pass:{KEY_PASSWORD}"
        ));
        authority
    }

    fn openssl(&self, args: &str) {
        let output =
            Command::new("openssl").args(args.split(' ')).current_dir(&self.folder.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn sign(&self, who: &str, subject: &str) {
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.csr -subj {subject}"
        ));
        self.openssl(&format!(
            "x509 -req -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {who}.crt -extfile {who}.ext"
        ));
        let both = [self.read(&format!("{who}.crt")), self.read(&format!("{who}.key"))].concat();
        std::fs::write(self.path(&format!("{who}.pem")), both).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// What makes a mongod speak TLS with this authority's certificate, and still without.
    pub fn prefer_tls(&self) -> Vec<String> {
        vec![
            "--tlsMode=preferTLS".to_owned(),
            format!("--tlsCertificateKeyFile={}", self.path("server.pem").display()),
            format!("--tlsCAFile={}", self.path("ca.crt").display()),
            "--tlsAllowConnectionsWithoutCertificates".to_owned(),
        ]
    }
}

/// A file that members authenticate each other with.
pub fn key_file(folder: &Path) -> String {
    let key = folder.join("key");
    std::fs::write(&key, "c2hhcmVkLWJ5LXRoZS1tZW1iZXJz").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    key.display().to_string()
}

/// A replica set that requires TLS and knows a root and the given users; with it a client of its root.
pub async fn start(name: &str, authority: &Authority, users: &[(&str, Document)]) -> (ReplicaSet, Client) {
    let mut options = Options::new(name);
    options.extra = authority.prefer_tls();
    options.extra.extend(["--auth".to_owned(), "--keyFile".to_owned(), key_file(&authority.folder.0)]);
    let mechanisms = "authenticationMechanisms=SCRAM-SHA-256,MONGODB-X509";
    options.extra.extend(["--setParameter".to_owned(), mechanisms.to_owned()]);
    let set = ReplicaSet::start(options).await;
    // The first user may be created from the same host without being one.
    let root = doc! {"createUser": "root", "pwd": PASSWORD, "roles": ["root"]};
    set.members[0].direct().await.database("admin").run_command(root).await.unwrap();
    let mut options = ClientOptions::parse(set.uri()).await.unwrap();
    let credential = Credential::builder().username("root".to_owned()).password(PASSWORD.to_owned()).build();
    options.credential = Some(credential);
    options.tls = Some(Tls::Enabled(TlsOptions::builder().ca_file_path(authority.path("ca.crt")).build()));
    let root = Client::with_options(options).unwrap();
    for (db, create) in users {
        root.database(db).run_command(create.clone()).await.unwrap();
    }
    root.database("admin").run_command(doc! {"setParameter": 1, "tlsMode": "requireTLS"}).await.unwrap();
    (set, root)
}

/// Bytes that the set's members have sent and received compressed by `compressor`.
pub async fn compressed(client: &Client, compressor: &str) -> i64 {
    let status = client.database("admin").run_command(doc! {"serverStatus": 1}).await.unwrap();
    let numbers = status.get_document("network").and_then(|network| network.get_document("compression"));
    let of =
        numbers.and_then(|all| all.get_document(compressor)).and_then(|one| one.get_document("compressor"));
    of.and_then(|bytes| bytes.get_i64("bytesIn")).unwrap_or(0)
}

//! The API over TLS: a certificate that is renewed needs no restart, and clients may have to show one.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{SOON, token};
use crate::daemon::{Fleet, sqlite};
use crate::harness::process::{self, wait_for};

/// Writes an authority and a certificate by it for 127.0.0.1: `NAME-ca.pem`, `NAME.pem`, `NAME.key`.
fn certify(fleet: &Fleet, name: &str) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.signed_by(&key, &issuer).unwrap();
    // a file is put in place whole
    for (file, text) in [("-ca.pem", ca_pem), (".pem", cert.pem()), (".key", key.serialize_pem())] {
        let path = fleet.path(&format!("{name}{file}"));
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }
}

/// Asks with curl, which trusts this authority: status, or why not.
fn ask(fleet: &Fleet, ca: &str, more: &[&str]) -> Result<String, String> {
    let mut command = process::command("curl");
    command.current_dir(fleet.path("")).args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
    command.args(["--cacert", ca, "-H", "Authorization: Bearer admin"]).args(more);
    command.arg(format!("https://127.0.0.1:{}/v1/whoami", fleet.port.number));
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn configure(fleet: &Fleet, more: &str) {
    let daemon = format!(
        "listen = \"\"\n[api]\nlisten = \"0.0.0.0:{}\"\ntls_cert = \"api.pem\"\ntls_key = \"api.key\"\n{more}\n{}",
        fleet.port.number,
        token("admin", "admin", "")
    );
    fleet.configure(&sqlite(), &daemon, "");
}

#[test]
fn a_certificate_is_served_renewed_without_a_restart_and_asked_of_clients() {
    let fleet = Fleet::new(0, &sqlite(), "", "");
    certify(&fleet, "api");
    configure(&fleet, "");
    let daemon = fleet.daemon();
    wait_for("the API", SOON, || {
        ask(&fleet, "api-ca.pem", &[]).and_then(|status| if status == "200" { Ok(()) } else { Err(status) })
    });
    std::fs::rename(fleet.path("api-ca.pem"), fleet.path("old-ca.pem")).unwrap();
    certify(&fleet, "api");
    assert_eq!(ask(&fleet, "api-ca.pem", &[]), Ok("200".to_owned()));
    assert!(ask(&fleet, "old-ca.pem", &[]).is_err(), "the old certificate is served no more");
    // one that cannot be used changes nothing
    std::fs::write(fleet.path("api.pem"), "nonsense").unwrap();
    assert_eq!(ask(&fleet, "api-ca.pem", &[]), Ok("200".to_owned()));
    drop(daemon);

    certify(&fleet, "api");
    certify(&fleet, "client");
    configure(&fleet, "tls_client_ca = \"client-ca.pem\"");
    let _daemon = fleet.daemon();
    let with = ["--cert", "client.pem", "--key", "client.key"];
    wait_for("the API", SOON, || ask(&fleet, "api-ca.pem", &with));
    assert_eq!(ask(&fleet, "api-ca.pem", &with), Ok("200".to_owned()));
    assert!(ask(&fleet, "api-ca.pem", &[]).is_err(), "who shows no certificate is not served");
}

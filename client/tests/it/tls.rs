//! R-OPS-2: TLS 1.3 with hybrid post-quantum key exchange, and every way that trust can be missing.

use crate::fake::Fake;
use rustls::{
    NamedGroup, ProtocolVersion, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{path::PathBuf, sync::Arc};
use strongroom_client::{Client, Error};
use tokio::{
    net::{TcpListener, UnixStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

/// TLS in front of a fake; tells what each connection negotiated.
struct Front {
    port: u16,
    ca_pem: String,
    negotiated: mpsc::UnboundedReceiver<(Option<ProtocolVersion>, Option<NamedGroup>)>,
}

async fn front(socket: PathBuf, names: &[&str]) -> Front {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, negotiated) = mpsc::unbounded_channel();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that does not trust us breaks the handshake off.
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let session = tls.get_ref().1;
            let group = session.negotiated_key_exchange_group().map(|group| group.name());
            let _ = tell.send((session.protocol_version(), group));
            let mut unix = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tls, &mut unix).await });
        }
    });
    Front {
        port,
        ca_pem: made.cert.pem(),
        negotiated,
    }
}

#[tokio::test]
async fn tls_13_with_post_quantum_key_exchange() {
    let fake = Fake::start();
    let mut front = front(fake.socket(), &["localhost", "127.0.0.1"]).await;
    for host in ["localhost", "127.0.0.1"] {
        let client = Client::builder()
            .address(format!("https://{host}:{}", front.port))
            .ca_pem(front.ca_pem.clone())
            .connect()
            .await
            .unwrap();
        client.get("kv/a").await.unwrap();
        let negotiated = front.negotiated.recv().await.unwrap();
        assert_eq!(
            negotiated,
            (Some(ProtocolVersion::TLSv1_3), Some(NamedGroup::X25519MLKEM768))
        );
    }
}

/// Each fault is a TLS error whose words name the way on.
#[tokio::test]
async fn missing_trust_is_explained() {
    let fake = Fake::start();
    let good = front(fake.socket(), &["localhost"]).await;
    let other = front(fake.socket(), &["localhost"]).await;
    let misnamed = front(fake.socket(), &["vault.example.com"]).await;
    for (case, port, ca, words) in [
        ("another CA", good.port, &other.ca_pem, "--ca-cert"),
        ("another name", misnamed.port, &misnamed.ca_pem, "host name"),
    ] {
        let address = format!("https://localhost:{port}");
        let error = Client::builder()
            .address(&address)
            .ca_pem(ca.clone())
            .connect()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Tls(_)), "{case}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&address), "{case}: {text}");
    }
}

/// A port that speaks no TLS is told from one that nobody listens on.
#[tokio::test]
async fn plain_text_is_not_spoken() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let connect = |port| {
        Client::builder()
            .address(format!("https://localhost:{port}"))
            .ca_pem(made.cert.pem())
            .connect()
    };
    assert!(matches!(connect(port).await.unwrap_err(), Error::Tls(_)));
    server.await.unwrap();
    assert!(matches!(connect(port).await.unwrap_err(), Error::Unavailable(_)));
}

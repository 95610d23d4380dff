//! The bare service, in a process of its own: TLS as the daemon's, generated messages, answers made once. Where an answer takes cryptography
//! (a ciphertext, a signature, a log-in's verified one), that is done; nobody is identified, decided, recorded or remembered.

use super::VALUE_BYTES;
use crate::Fault;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SystemRandom, fill},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use bytes::Bytes;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{
    convert::Infallible,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use strongroom_proto::v1;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
    transport::{Server, server::Connected},
};
use tonic_prost::ProstCodec;

/// Serves until it is killed; prints its port.
/// # Errors
/// It cannot listen.
pub fn serve(cert: &Path, key: &Path) -> Result<(), Fault> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(default_provider());
    let any = AnyCertificate(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(any))
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let (out, connections) = mpsc::channel(64);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), out));
        let answers = Arc::new(Answers::new()?);
        Server::builder()
            .add_service(Kv(Arc::clone(&answers)))
            .add_service(Token(Arc::clone(&answers)))
            .add_service(Login(Arc::clone(&answers)))
            .add_service(Transit(Arc::clone(&answers)))
            .add_service(Delivery(answers))
            .serve_with_incoming(ReceiverStream::new(connections))
            .await?;
        Ok(())
    })
}

/// Asks for a client certificate and takes any, as the daemon does.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, out: mpsc::Sender<io::Result<Connection>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, out) = (acceptor.clone(), out.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            if let Ok(stream) = acceptor.accept(tcp).await {
                let _ = out.send(Ok(Connection(stream))).await;
            }
        });
    }
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

const TIME: &str = "2026-01-01T00:00:00.000Z";
/// What a log-in's signature is over: as much as a short JWT.
const SIGNED: [u8; 400] = [b'j'; 400];

/// All that is answered, made once.
struct Answers {
    read: v1::KvGetResponse,
    token: v1::TokenInfo,
    made: v1::TokenCreateResponse,
    /// As long as a sealed token.
    logged_in: v1::LoginResponse,
    aead: LessSafeKey,
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    /// Of [`SIGNED`].
    signature: Vec<u8>,
    /// How many times something was written: what watchers hear.
    written: watch::Sender<u64>,
}

fn id() -> String {
    "0".repeat(32)
}

fn no<E>(_: E) -> Status {
    Status::internal("cryptography failed")
}

impl Answers {
    fn new() -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        fill(&mut key)?;
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        Ok(Self {
            read: v1::KvGetResponse {
                fields: value(),
                version: 1,
                created_at: TIME.into(),
                labels: vec!["current".into()],
            },
            token: v1::TokenInfo {
                accessor: id(),
                identity: "bench".into(),
                groups: vec!["bench".into()],
                created_at: TIME.into(),
                expires_at: TIME.into(),
                max_expires_at: TIME.into(),
                session: id(),
                purpose: "session".into(),
                ttl_secs: 900,
                ..Default::default()
            },
            made: v1::TokenCreateResponse {
                token: "t".repeat(56),
                accessor: id(),
                ttl_secs: 900,
                expires_at: TIME.into(),
                session: id(),
            },
            logged_in: v1::LoginResponse {
                token: "t".repeat(500),
                accessor: id(),
                session: id(),
                ttl_secs: 900,
                expires_at: TIME.into(),
                trust: "bench".into(),
                groups: vec!["bench".into()],
                sealed: true,
                ..Default::default()
            },
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?),
            ed25519: Ed25519KeyPair::generate()?,
            signature: p256.sign(&random, &SIGNED)?.as_ref().to_vec(),
            p256,
            written: watch::Sender::new(1),
        })
    }

    fn log_in(&self) -> Result<v1::LoginResponse, Status> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.p256.public_key().as_ref())
            .verify(&SIGNED, &self.signature)
            .map_err(no)?;
        Ok(self.logged_in.clone())
    }

    fn encrypt(&self, asked: v1::TransitEncryptRequest) -> Result<v1::TransitEncryptResponse, Status> {
        let seal = |item: v1::TransitPlain| {
            let mut nonce = [0; NONCE_LEN];
            fill(&mut nonce).map_err(no)?;
            let mut sealed = [&nonce[..], &item.plaintext].concat();
            let (_, text) = sealed.split_at_mut(NONCE_LEN);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let aad = Aad::from(item.context);
            let tag = self.aead.seal_in_place_separate_tag(nonce, aad, text).map_err(no)?;
            sealed.extend_from_slice(tag.as_ref());
            Ok(v1::TransitCiphertext {
                result: Some(v1::transit_ciphertext::Result::Ciphertext(sealed.into())),
                key_version: 1,
            })
        };
        let results = asked.items.into_iter().map(seal).collect::<Result<_, Status>>()?;
        Ok(v1::TransitEncryptResponse { results })
    }

    /// With Ed25519, or with P-256 for a key whose name says so.
    fn sign(&self, asked: v1::TransitSignRequest) -> Result<v1::TransitSignResponse, Status> {
        let random = SystemRandom::new();
        let sign = |input: Bytes| {
            let signature = match asked.path.ends_with("p256") {
                true => Bytes::copy_from_slice(self.p256.sign(&random, &input).map_err(no)?.as_ref()),
                false => Bytes::copy_from_slice(self.ed25519.sign(&input).as_ref()),
            };
            Ok(v1::TransitSignature {
                signature,
                key_version: 1,
            })
        };
        let results = asked.inputs.into_iter().map(sign).collect::<Result<_, Status>>()?;
        Ok(v1::TransitSignResponse { results })
    }

    fn fetch(&self, asked: v1::FetchRequest) -> v1::FetchResponse {
        let items = asked.items.into_iter().map(|item| delivered(item.path, 1));
        v1::FetchResponse { items: items.collect() }
    }

    fn watch(&self, asked: v1::WatchRequest) -> impl Stream<Item = Result<v1::WatchResponse, Status>> + use<> {
        let path = match asked.items.into_iter().next().and_then(|item| item.what) {
            Some(v1::watch_item::What::Path(path)) => path,
            _ => String::new(),
        };
        let mut written = self.written.subscribe();
        written.mark_changed();
        futures::stream::unfold((written, path), |(mut written, path)| async {
            written.changed().await.ok()?;
            let version = *written.borrow_and_update();
            let changed = delivered(path.clone(), version);
            let response = v1::WatchResponse {
                item: 0,
                resume: "r".repeat(23),
                event: Some(v1::watch_response::Event::Changed(changed)),
            };
            Some((Ok(response), (written, path)))
        })
    }

    fn write(&self) -> v1::KvPutResponse {
        self.written.send_modify(|version| *version += 1);
        v1::KvPutResponse {
            version: *self.written.borrow(),
            ..Default::default()
        }
    }
}

fn value() -> std::collections::BTreeMap<String, Bytes> {
    [("value".to_owned(), Bytes::from(vec![b'v'; VALUE_BYTES]))].into()
}

fn delivered(path: String, version: u64) -> v1::Delivered {
    v1::Delivered {
        path,
        fields: value(),
        kind: Some(v1::delivered::Kind::Secret(v1::DeliveredSecret {
            version,
            created_at: TIME.into(),
            labels: vec!["current".into()],
        })),
        remaining_secs: None,
        resume: "r".repeat(23),
        ..Default::default()
    }
}

type Wire = http::Request<Body>;
type Reply = http::Response<Body>;

/// As the generated servers do it.
async fn unary<Q, R>(request: Wire, answer: impl FnOnce(Q) -> Result<R, Status> + Send) -> Reply
where
    Q: prost::Message + Default + Send + 'static,
    R: prost::Message + Send + 'static,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(|request: Request<Q>| {
        let answered = answer.take().map_or_else(
            || Err(Status::internal("asked twice")),
            |answer| answer(request.into_inner()),
        );
        std::future::ready(answered.map(Response::new))
    });
    Grpc::new(ProstCodec::default()).unary(service, request).await
}

async fn answer(answers: Arc<Answers>, request: Wire) -> Reply {
    match request.uri().path() {
        "/strongroom.v1.Kv/Get" => unary(request, |_: v1::KvGetRequest| Ok(answers.read.clone())).await,
        "/strongroom.v1.Kv/Put" => unary(request, |_: v1::KvPutRequest| Ok(answers.write())).await,
        "/strongroom.v1.Token/Get" => unary(request, |_: v1::TokenGetRequest| Ok(answers.token.clone())).await,
        "/strongroom.v1.Token/Create" => unary(request, |_: v1::TokenCreateRequest| Ok(answers.made.clone())).await,
        "/strongroom.v1.Login/Login" => unary(request, |_: v1::LoginRequest| answers.log_in()).await,
        "/strongroom.v1.Transit/Encrypt" => unary(request, |asked| answers.encrypt(asked)).await,
        "/strongroom.v1.Transit/Sign" => unary(request, |asked| answers.sign(asked)).await,
        "/strongroom.v1.Delivery/Fetch" => unary(request, |asked| Ok(answers.fetch(asked))).await,
        "/strongroom.v1.Delivery/Watch" => {
            let service = tower::service_fn(|request: Request<v1::WatchRequest>| {
                std::future::ready(Ok(Response::new(answers.watch(request.into_inner()))))
            });
            Grpc::new(ProstCodec::default())
                .server_streaming(service, request)
                .await
        }
        _ => Status::unimplemented("the bare service does not have this").into_http(),
    }
}

macro_rules! services {
    ($($name:ident = $server:ident),* $(,)?) => {$(
        #[derive(Clone)]
        struct $name(Arc<Answers>);
        impl NamedService for $name {
            const NAME: &'static str = v1::$server::SERVICE_NAME;
        }
        impl Service<Wire> for $name {
            type Response = Reply;
            type Error = Infallible;
            type Future = BoxFuture<Reply, Infallible>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, request: Wire) -> Self::Future {
                let answers = Arc::clone(&self.0);
                Box::pin(async { Ok(answer(answers, request).await) })
            }
        }
    )*};
}

services!(
    Kv = kv_server,
    Token = token_server,
    Login = login_server,
    Transit = transit_server,
    Delivery = delivery_server,
);

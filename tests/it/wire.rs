//! The wire below the services: TLS, Unix peers, health, reflection, sizes, deadlines, details of errors. And a client that sends any bytes to
//! any method, which other topics use.

use crate::world::{World, reason, shared, value};
use bytes::{Buf, BufMut, Bytes};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, NamedGroup, RootCertStore, pki_types::pem::PemObject};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strongroom_client::{Client, v1};
use strongroom_tests::Lab;
use tokio::net::{TcpStream, UnixStream};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::{self, uri::PathAndQuery},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

/// Sends and takes messages as the bytes they are.
#[derive(Clone, Copy, Default)]
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A connection over the Unix socket that speaks gRPC and knows no service.
#[derive(Clone)]
pub struct Raw(Channel);

impl Raw {
    pub async fn connect(lab: &Lab) -> Self {
        let socket = lab.socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://strongroom.invalid").connect_timeout(Duration::from_secs(5));
        Self(
            endpoint
                .connect_with_connector(connector)
                .await
                .expect("the socket answers"),
        )
    }

    /// One message to `path` (`/package.Service/Method`), and the first that comes back.
    pub async fn call(
        &self,
        path: &str,
        message: Bytes,
        token: Option<&str>,
        deadline: Option<Duration>,
    ) -> Result<Bytes, Status> {
        let mut request = Request::new(tokio_stream::once(message));
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path: PathAndQuery = path.parse().unwrap();
        let mut answers = grpc.streaming(request, path, AsBytes).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::internal(NO_MESSAGE))
    }
}

/// What a call gets whose stream ends before anything has come.
pub const NO_MESSAGE: &str = "no message";

/// Every method of the wire, from the descriptor set that the daemon serves: `/strongroom.v1.Kv/Get`.
pub fn methods() -> Vec<String> {
    use prost::Message;
    let set = prost_types::FileDescriptorSet::decode(strongroom_proto::DESCRIPTOR).expect("the descriptor set decodes");
    let services = set
        .file
        .iter()
        .filter(|file| file.package() == "strongroom.v1")
        .flat_map(|file| &file.service);
    let methods: Vec<_> = services
        .flat_map(|service| {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("/strongroom.v1.{}/{}", service.name(), method.name())
            };
            service.method.iter().map(name)
        })
        .collect();
    assert!(methods.len() > 40, "{methods:?}");
    methods
}

/// A TLS client that trusts the laboratory, with these versions.
fn tls_client(lab: &Lab, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(lab.ca()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Handshakes; the group that was agreed on and the server's certificate.
pub async fn handshake(
    lab: &Lab,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<(NamedGroup, Vec<u8>)> {
    let tcp = TcpStream::connect(lab.address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_client(lab, versions)));
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await?;
    let connection = stream.get_ref().1;
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    Ok((group, connection.peer_certificates().unwrap()[0].to_vec()))
}

/// R-OPS-2: TLS 1.3 with the hybrid post-quantum group; 1.2 is refused unless it was allowed; plain text is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_hybrid_and_new() {
    use rustls::version::{TLS12, TLS13};
    let lab = &shared().world.lab;
    assert_eq!(handshake(lab, &[&TLS13]).await.unwrap().0, NamedGroup::X25519MLKEM768);
    assert!(handshake(lab, &[&TLS12]).await.is_err(), "TLS 1.2 is off by default");
    let mut tcp = TcpStream::connect(lab.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut tcp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut heard = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut heard);
    let _ = tokio::time::timeout(Duration::from_secs(15), ended)
        .await
        .expect("plain text is hung up on");
    assert!(!heard.windows(4).any(|four| four == b"HTTP"), "no answer in plain text");
    let mut allowed = Lab::with_tokens(&[]);
    allowed.listener = "tls12 = true".to_owned();
    let _daemon = allowed.start();
    handshake(&allowed, &[&TLS12]).await.expect("allowed by choice");
}

/// R-OPS-3: health by gRPC follows the seal; reflection lists every service.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    let world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3"]);
    let raw = Raw::connect(&world.lab).await;
    let kv = [&[0x0a, 16][..], b"strongroom.v1.Kv"].concat();
    let check = |message: Vec<u8>| raw.call("/grpc.health.v1.Health/Check", message.into(), None, None);
    const SERVING: &[u8] = &[8, 1];
    const NOT_SERVING: &[u8] = &[8, 2];
    assert_eq!(check(kv.clone()).await.unwrap(), NOT_SERVING, "sealed");
    world.unseal("daily");
    let began = Instant::now();
    while check(kv.clone()).await.unwrap() != SERVING {
        assert!(
            began.elapsed() < crate::world::PATIENCE,
            "open, and health does not say so"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let list = Bytes::from_static(&[0x3a, 0]);
    let listed = raw
        .call(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            list,
            None,
            None,
        )
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&listed);
    for service in ["Operator", "Kv", "Mount", "Creds", "Lease", "Token", "Policy", "Audit"] {
        assert!(text.contains(&format!("strongroom.v1.{service}")), "{service}: {text}");
    }
}

/// A daemon's health may be watched by anybody, so the watches are bounded; those over the bound are told so, checks are answered all the
/// same, and a watch that leaves makes room for another.
#[tokio::test(flavor = "multi_thread")]
async fn health_watches_are_bounded() {
    const WATCHES_MAX: usize = 256;
    let world = World::open();
    let watch = |raw: &Raw| {
        let mut grpc = Grpc::new(raw.0.clone());
        async move {
            grpc.ready().await.unwrap();
            let request = Request::new(tokio_stream::once(Bytes::new()));
            let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
            grpc.streaming(request, path, AsBytes)
                .await
                .map(|answer| answer.into_inner())
        }
    };
    let mut open = Vec::new();
    for _ in 0..WATCHES_MAX / 64 {
        let raw = Raw::connect(&world.lab).await;
        for _ in 0..64 {
            open.push(watch(&raw).await.expect("a watch within the bound"));
        }
    }
    let raw = Raw::connect(&world.lab).await;
    let refused = watch(&raw).await.map(drop).expect_err("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let check = || raw.call("/grpc.health.v1.Health/Check", Bytes::new(), None, None);
    assert!(check().await.is_ok(), "checks need no place");
    open.truncate(WATCHES_MAX / 2);
    let began = Instant::now();
    while watch(&raw).await.is_err() {
        assert!(began.elapsed() < crate::world::PATIENCE, "no room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The contract of errors: every failure has `google.rpc.ErrorInfo` with domain, a reason of docs/ERRORS.md and the request's id.
#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_details() {
    let world = &shared().world;
    let client = world.client().await;
    let documented = include_str!("../../docs/ERRORS.md");
    let get = |client: Client, path: &str| {
        let request = v1::KvGetRequest {
            path: path.to_owned(),
            ..Default::default()
        };
        async move { client.stubs().kv().get(request).await.unwrap_err() }
    };
    let nobody = world.lab.client(&world.token("detailed", &[])).await;
    for (status, code, word) in [
        (get(client.clone(), "kv/none/such").await, Code::NotFound, "NOT_FOUND"),
        (get(client.clone(), "kv//x").await, Code::InvalidArgument, "MALFORMED"),
        (get(nobody, "kv/none/such").await, Code::PermissionDenied, "DENIED"),
        (
            get(world.lab.client("srm_at_x").await, "kv/none").await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        ),
    ] {
        assert_eq!(status.code(), code, "{status:?}");
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("strongroom", word));
        assert_eq!(info.metadata["request_id"].len(), 32);
        assert!(documented.contains(&format!("| `{word}` |")), "{word} is documented");
    }
}

/// A message over the limit, a method nobody knows and bytes that are no message are refused, recorded, and harm nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_recorded() {
    let world = World::open();
    let client = world.client().await;
    let raw = Raw::connect(&world.lab).await;
    let mut large = vec![0x0a, 0x80, 0x80, 0xc0, 0x01]; // a path of 3 MiB
    large.resize((3 << 20) + 5, b'x');
    for (path, bytes, code, word) in [
        ("/strongroom.v1.Kv/Put", large, Code::InvalidArgument, "TOO_LARGE"),
        ("/strongroom.v1.Kv/Steal", vec![], Code::Unimplemented, "UNKNOWN_METHOD"),
        (
            "/strongroom.v1.Nothing/At",
            vec![],
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        (
            "/strongroom.v1.Kv/Get",
            vec![0xff; 9],
            Code::InvalidArgument,
            "MALFORMED",
        ),
    ] {
        let status = raw.call(path, bytes.into(), Some(&world.root), None).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("strongroom", word));
        assert_eq!(info.metadata["request_id"].len(), 32, "{path}");
    }
    client.put("kv/after", &value("x"), None).await.unwrap();
    let told: Vec<_> = crate::audit::records(&world.cli())
        .iter()
        .filter(|record| record["op"] == "unreadable")
        .map(|record| (record["params"]["method"].clone(), record["outcome"]["reason"].clone()))
        .collect();
    let method = |name: &str| serde_json::Value::from(name);
    for wanted in [
        (method("/strongroom.v1.Kv/Put"), method("TOO_LARGE")),
        (method("unknown"), method("UNKNOWN_METHOD")),
        (method("/strongroom.v1.Kv/Get"), method("MALFORMED")),
    ] {
        assert!(told.contains(&wanted), "{wanted:?} in {told:?}");
    }
}

/// A caller's deadline is kept by the daemon, told as such and recorded: of this call the message never comes.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept() {
    let world = &shared().world;
    let socket = UnixStream::connect(world.lab.socket()).await.unwrap();
    // Below tonic's client, which would give up by itself.
    let (calls, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://strongroom.invalid/strongroom.v1.Kv/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", world.root))
        .header("grpc-timeout", "100m")
        .body(())
        .unwrap();
    let (answer, _never_ended) = calls.ready().await.unwrap().send_request(request, false).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
    let answer = answer.expect("the daemon does not wait").unwrap();
    let status = Status::from_header_map(answer.headers()).expect("a status");
    connection.abort();
    // On a busy machine tonic's own answer may overtake the record.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    if let Some(info) = status.get_details_error_info() {
        assert_eq!(info.reason, "DEADLINE");
    }
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let told = crate::audit::records(&world.cli());
        let is_it = |record: &serde_json::Value| {
            record["params"]["method"] == "/strongroom.v1.Kv/Get" && record["outcome"]["reason"] == "DEADLINE"
        };
        if told.iter().any(is_it) {
            break;
        }
        assert!(Instant::now() < until, "it is not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// R-OPS-4: a namespace that is not there is refused, never taken for the one that is.
#[tokio::test(flavor = "multi_thread")]
async fn another_namespace_is_not_answered_from_this_one() {
    let world = &shared().world;
    let client = world.client().await;
    client.put("kv/namespaced", &value("x"), None).await.unwrap();
    let get = async |namespace: &'static str| {
        let mut request = Request::new(v1::KvGetRequest {
            path: "kv/namespaced".to_owned(),
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("x-strongroom-namespace", namespace.parse().unwrap());
        client.stubs().kv().get(request).await
    };
    get("root").await.unwrap();
    for other in ["other", "root/team", "ROOT"] {
        assert_eq!(get(other).await.unwrap_err().code(), Code::InvalidArgument, "{other}");
    }
}

/// R-AUTH-1: a Unix peer is known by the kernel's word, and still needs a token for what needs one.
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_no_token() {
    let world = &shared().world;
    let address = format!("unix:{}", world.lab.socket().display());
    let client = Client::builder().address(address).connect().await.unwrap();
    assert_eq!(reason(client.get("kv/a").await), "TOKEN_INVALID");
}

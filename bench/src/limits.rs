//! What the machine can do, measured in the same run: a bare tonic service over TLS that answers with the same bytes and does nothing else,
//! and `fdatasync` of a preallocated file.

use crate::{
    Fault,
    contest::{Contender, Role},
    host,
    load::{Answered, Caller, Callers},
    openbao,
};
use bytes::Bytes;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::FileExt,
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
};
use strongroom_proto::v1::{self, kv_client::KvClient, kv_server};
use strongroom_tests::Lab;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, server::Connected},
};

/// What every value of the bench holds.
pub const VALUE_BYTES: usize = 1024;

/// A bare service in a process of its own, killed when dropped.
pub struct Echo {
    child: Child,
    port: u16,
}

impl Echo {
    /// Starts it on the server's core, with the certificate of `lab`.
    /// # Errors
    /// It does not come up.
    pub fn start(lab: &Lab) -> Result<Self, Fault> {
        let mut child = host::starting_on(&[host::SERVER_CORE], || {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("--echo")
                .arg(lab.dir().join("server.pem"))
                .arg(lab.dir().join("server.key"));
            Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
        })?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output of the bare service")?).read_line(&mut line)?;
        Ok(Self {
            child,
            port: line.trim().parse()?,
        })
    }

    /// As a contender that is read with the same calls.
    /// # Errors
    /// A connection fails.
    pub async fn contender(&self, lab: &Lab, conns: usize) -> Result<Contender, Fault> {
        let mut callers = Callers::new();
        for _ in 0..conns {
            let channel = bare_channel(lab, self.port).await?;
            // As long as a token of ours.
            callers.push(bare_reader(channel, &"t".repeat(56), VALUE_BYTES)?);
        }
        Ok(Contender {
            name: "limit: bare tonic".into(),
            role: Role::Limit,
            durability: "none",
            pid: Some(self.child.id()),
            callers,
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the bare service until it is killed; prints its port.
/// # Errors
/// It cannot listen.
pub fn serve_echo(cert: &Path, key: &Path) -> Result<(), Fault> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let (out, connections) = mpsc::channel(64);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), out));
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let reply = v1::KvGetResponse {
            fields: [("value".to_owned(), value)].into(),
            version: 1,
            created_at: "2026-01-01T00:00:00.000Z".into(),
            labels: vec!["current".into()],
        };
        let server = tonic::transport::Server::builder().add_service(kv_server::KvServer::new(Bare(reply)));
        server.serve_with_incoming(ReceiverStream::new(connections)).await?;
        Ok(())
    })
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

struct Bare(v1::KvGetResponse);

/// Nothing but `Get` is asked of it.
fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bare service only reads"))
}

#[tonic::async_trait]
impl kv_server::Kv for Bare {
    async fn get(&self, _: Request<v1::KvGetRequest>) -> Result<Response<v1::KvGetResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
    async fn put(&self, _: Request<v1::KvPutRequest>) -> Result<Response<v1::KvPutResponse>, Status> {
        absent()
    }
    async fn list(&self, _: Request<v1::KvListRequest>) -> Result<Response<v1::KvListResponse>, Status> {
        absent()
    }
    async fn delete(&self, _: Request<v1::KvDeleteRequest>) -> Result<Response<v1::KvDeleteResponse>, Status> {
        absent()
    }
    async fn undelete(&self, _: Request<v1::KvUndeleteRequest>) -> Result<Response<v1::KvUndeleteResponse>, Status> {
        absent()
    }
    async fn destroy(&self, _: Request<v1::KvDestroyRequest>) -> Result<Response<v1::KvDestroyResponse>, Status> {
        absent()
    }
    async fn history(&self, _: Request<v1::KvHistoryRequest>) -> Result<Response<v1::KvHistoryResponse>, Status> {
        absent()
    }
    async fn set_metadata(
        &self,
        _: Request<v1::KvSetMetadataRequest>,
    ) -> Result<Response<v1::KvSetMetadataResponse>, Status> {
        absent()
    }
}

/// One connection to it.
async fn bare_channel(lab: &Lab, port: u16) -> Result<Channel, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.ca())?)?;
    let mut config = openbao::tls(roots)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://localhost:{port}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Reads from the bare service exactly as the callers of Strongroom do.
fn bare_reader(channel: Channel, token: &str, value_bytes: usize) -> Result<Box<dyn Caller>, Fault> {
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    Ok(Box::new(BareReader {
        kv: KvClient::new(channel),
        bearer,
        next: 0,
        value_bytes,
    }))
}

struct BareReader {
    kv: KvClient<Channel>,
    bearer: MetadataValue<Ascii>,
    next: u64,
    value_bytes: usize,
}

impl Caller for BareReader {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/r/s{}", self.next % 256);
            self.next += 1;
            let mut request = Request::new(v1::KvGetRequest { path, select: None });
            request.metadata_mut().insert("authorization", self.bearer.clone());
            let reply = self.kv.get(request).await?.into_inner();
            let right = reply
                .fields
                .get("value")
                .is_some_and(|value| value.len() == self.value_bytes);
            if right { Ok(()) } else { Err("a wrong value".into()) }
        })
    }
}

/// Bytes of the preallocated file, and of one write.
const FILE_BYTES: u64 = 8 << 20;
const WRITE_BYTES: usize = 4096;

/// One writer that writes 4 KiB into a preallocated file and waits for `fdatasync`, again and again.
/// # Errors
/// The file cannot be made in `dir`.
pub fn fdatasync(dir: &Path) -> Result<Contender, Fault> {
    let file = tempfile::tempfile_in(dir)?;
    let zeros = vec![0; 1 << 20];
    for at in 0..FILE_BYTES >> 20 {
        file.write_all_at(&zeros, at << 20)?;
    }
    file.sync_all()?;
    let callers: Callers = vec![Box::new(Syncer { file, at: 0 })];
    Ok(Contender {
        name: "limit: fdatasync, 1 writer".into(),
        role: Role::Limit,
        durability: "synced",
        pid: None,
        callers,
    })
}

struct Syncer {
    file: File,
    at: u64,
}

impl Caller for Syncer {
    fn call(&mut self) -> Answered<'_> {
        // Blocks the load's thread: nothing else runs in this window.
        Box::pin(async {
            self.file.write_all_at(&[7; WRITE_BYTES], self.at)?;
            self.at = (self.at + WRITE_BYTES as u64) % FILE_BYTES;
            self.file.sync_data()?;
            Ok(())
        })
    }
}

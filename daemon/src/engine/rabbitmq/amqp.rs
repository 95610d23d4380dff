//! A client of AMQP 0-9-1 for tests, as small as one can be: it logs in, opens a channel, and asks. It is not the engine.

use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
const METHOD: u8 = 1;
const END: u8 = 0xCE;

/// Class and method of an answer, as the specification numbers them.
type Method = (u16, u16);
const START: Method = (10, 10);
const TUNE: Method = (10, 30);
const OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN_OK: Method = (20, 11);
const QOS_OK: Method = (60, 11);
const GET_EMPTY: Method = (60, 72);
const DECLARE_OK: Method = (50, 11);
/// An acknowledgement of what was published.
const PUBLISH_OK: Method = (60, 80);

/// An open connection with one channel.
pub(super) struct Connection(TcpStream);

impl Connection {
    /// Logs in to a virtual host; `None`: refused, or nobody there.
    pub async fn open(port: u16, account: &str, password: &str, vhost: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
        let mut connection = Self(stream);
        connection.expect(START).await?;
        // It wants to hear of a refusal at once: without this the server says nothing for seconds, then hangs up.
        let capability = [short("authentication_failure_close").as_slice(), b"t\x01"].concat();
        let capabilities = [short("capabilities").as_slice(), b"F", &long(&capability)].concat();
        let answer = long(format!("\0{account}\0{password}").as_bytes());
        let start_ok = [
            long(&capabilities).as_slice(),
            &short("PLAIN"),
            &answer,
            &short("en_US"),
        ]
        .concat();
        connection.say(0, (10, 11), &start_ok).await?;
        connection.expect(TUNE).await?;
        // A few channels, frames of 128 KiB, no heartbeats.
        connection.say(0, (10, 31), &[0, 8, 0, 2, 0, 0, 0, 0]).await?;
        connection
            .say(0, (10, 40), &[short(vhost).as_slice(), &[0, 0]].concat())
            .await?;
        connection.expect(OPEN_OK).await?;
        connection.say(1, (20, 10), &[0]).await?;
        connection.expect(CHANNEL_OPEN_OK).await?;
        Some(connection)
    }

    /// Whether the server still answers; it needs no permission.
    pub async fn alive(&mut self) -> bool {
        self.asks((60, 10), &[0, 0, 0, 0, 0, 1, 0], QOS_OK).await
    }

    /// Whether it may read an empty queue.
    pub async fn reads(&mut self, queue: &str) -> bool {
        let get = [&[0, 0], short(queue).as_slice(), &[0]].concat();
        self.asks((60, 70), &get, GET_EMPTY).await
    }

    /// Whether it may make a queue. A refusal ends the channel, and this connection is of no more use.
    pub async fn declares(&mut self, queue: &str) -> bool {
        let declare = [&[0, 0], short(queue).as_slice(), &[0, 0, 0, 0, 0]].concat();
        self.asks((50, 10), &declare, DECLARE_OK).await
    }

    /// Whether it may publish to an exchange, with this routing key, an empty message to nobody. A refusal ends the channel.
    pub async fn publishes(&mut self, exchange: &str, key: &str) -> bool {
        // Confirms: a message that was taken is acknowledged.
        if !self.asks((85, 10), &[0], (85, 11)).await {
            return false;
        }
        let publish = [&[0, 0], short(exchange).as_slice(), &short(key), &[0]].concat();
        // A content header of class 60, no body, no properties.
        let header = [&60_u16.to_be_bytes()[..], &[0; 12]].concat();
        let said = self.say(1, (60, 40), &publish).await.is_some() && self.frame(2, 1, &header).await.is_some();
        said && self.expect(PUBLISH_OK).await.is_some()
    }

    async fn asks(&mut self, method: Method, arguments: &[u8], answer: Method) -> bool {
        self.say(1, method, arguments).await.is_some() && self.expect(answer).await.is_some()
    }

    async fn say(&mut self, channel: u16, (class, method): Method, arguments: &[u8]) -> Option<()> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(METHOD, channel, &payload).await
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Option<()> {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long(payload));
        frame.push(END);
        self.0.write_all(&frame).await.ok()
    }

    async fn expect(&mut self, wanted: Method) -> Option<()> {
        let got = tokio::time::timeout(PATIENCE, self.next()).await.ok()??;
        (got == wanted).then_some(())
    }

    async fn next(&mut self) -> Option<Method> {
        let kind = self.0.read_u8().await.ok()?;
        let _channel = self.0.read_u16().await.ok()?;
        let length = self.0.read_u32().await.ok()?;
        let mut payload = vec![0; usize::try_from(length).ok()? + 1];
        self.0.read_exact(&mut payload).await.ok()?;
        let [a, b, c, d, ..] = payload[..] else { return None };
        (kind == METHOD).then(|| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text.bytes());
    bytes
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

//! Below tonic's decoding: bounds on requests in flight, a deadline for callers that name none, and a record of what never reached the gate
//! (unknown methods, undecodable messages). Health and reflection pass through; their streams are bounded.

use super::{methods, status::status};
use crate::{
    base::limits::REQUEST_BYTES_MAX,
    gate::{Failure, Gate, Origin, Reason},
    limit::Lane,
};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

/// Calls that must get through when everything else is full: they free things, or tell how things stand.
const RESERVED: [&str; 7] = [
    "/strongroom.v1.Lease/Renew",
    "/strongroom.v1.Lease/Revoke",
    "/strongroom.v1.Token/Renew",
    "/strongroom.v1.Token/Revoke",
    "/strongroom.v1.Operator/Seal",
    "/strongroom.v1.Operator/Present",
    "/strongroom.v1.Operator/Status",
];
const LOG_IN: [&str; 2] = ["/strongroom.v1.Login/Login", "/strongroom.v1.Login/Begin"];
/// Health watches and reflections open at once. Checks of health are answered at once, and take no place.
const STREAMS_MAX: usize = 256;
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Of a message that nobody reads so much is let in, and for so long.
const UNREAD_BYTES_MAX: usize = 64 << 10;
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);

/// A proof of the caller's key, and what the next one must carry (RFC 9449).
const PROOF: &str = "dpop";
const PROOF_NONCE: &str = "dpop-nonce";

/// No request takes longer, whatever its caller asks for.
const DEADLINE_MAX: Duration = Duration::from_secs(300);

/// tonic ends a call at its caller's deadline by itself, without a record and as `CANCELLED`. We end it so much earlier.
const EARLY_MAX: Duration = Duration::from_millis(50);

/// How long a call may take of which `asked` is the caller's deadline, if it has one.
fn patience(asked: Option<Duration>, default: Duration) -> Duration {
    match asked {
        Some(asked) => (asked - (asked / 8).min(EARLY_MAX)).min(DEADLINE_MAX),
        None => default.min(DEADLINE_MAX),
    }
}

/// `grpc-timeout`: 1 to 8 digits and a unit. `None` for anything else.
fn asked_deadline(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The path of a call, `/strongroom.v1.Kv/Get`: what a DPoP proof must be for.
#[derive(Debug, Clone)]
pub struct Called(pub Arc<str>);

/// Set by the gate when it took the request over; what the layer sees unset was never recorded.
#[derive(Debug, Clone, Default)]
pub struct Taken(Arc<AtomicBool>);

impl Taken {
    /// The gate has it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Makes [`Admission`] around the router.
#[derive(Clone)]
pub struct AdmissionLayer {
    gate: Arc<Gate>,
    streams: Arc<Semaphore>,
    deadline: Duration,
}

impl AdmissionLayer {
    /// `deadline` for calls that name none.
    pub fn new(gate: Arc<Gate>, deadline: Duration) -> Self {
        Self {
            gate,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            deadline,
        }
    }
}

/// Answers a request whose message nobody reads. What is on its way is let in and dropped: for a message that comes after its answer HTTP/2 has
/// only an error, and after many of them the connection, with everybody else's requests on it, is given up.
fn refused<E: Send + 'static>(request: Request<Body>, failure: Failure) -> Answer<E> {
    Box::pin(async move {
        let mut body = request.into_body();
        let rest = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, |data| data.len());
                if bytes > UNREAD_BYTES_MAX {
                    break;
                }
            }
        };
        // A timeout is as good as an end.
        let _ = tokio::time::timeout(UNREAD_PATIENCE, rest).await;
        Ok(status(&failure, "").into_http())
    })
}

/// Why a request never reached the gate, from tonic's answer to it.
fn unread(answer: &Response<Body>, method: Option<&str>) -> Failure {
    let code = Status::from_header_map(answer.headers()).map_or(Code::Unknown, |status| status.code());
    match code {
        Code::DeadlineExceeded => Failure::new(Reason::Deadline),
        Code::OutOfRange | Code::ResourceExhausted => Failure::with(
            Reason::TooLarge,
            format!("a message has {REQUEST_BYTES_MAX} bytes at most"),
        ),
        _ if method.is_none() => Failure::new(Reason::UnknownMethod),
        _ => Failure::with(
            Reason::Malformed,
            "this is no message of that method, or it is encoded in a way that is not taken",
        ),
    }
}

fn lane_of(path: &str) -> Lane {
    match path {
        path if LOG_IN.contains(&path) => Lane::LogIn,
        // Health and reflection: their streams have places of their own.
        path if RESERVED.contains(&path) || path.starts_with("/grpc.") => Lane::Reserved,
        _ => Lane::Ordinary,
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;
    fn layer(&self, inner: S) -> Admission<S> {
        Admission {
            inner,
            shared: self.clone(),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Admission<S> {
    inner: S,
    shared: AdmissionLayer,
}

impl<S> Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    /// A stream that anybody may open keeps its place until its last byte is sent or its reader has left.
    fn stream(&mut self, request: Request<Body>) -> Answer<S::Error> {
        let Ok(place) = Arc::clone(&self.shared.streams).try_acquire_owned() else {
            return refused(request, self.shared.gate.no_place(Reason::Overloaded.text()));
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                }))
            }))
        })
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = methods::known(path);
        if path == HEALTH_CHECK {
            return Box::pin(self.inner.call(request));
        }
        let lane = lane_of(path);
        let is_open_to_all = path.starts_with("/grpc.");
        let origin = request.extensions().get::<Origin>().cloned();
        let place = match self.shared.gate.let_in(origin.as_ref(), lane) {
            Ok(place) => place,
            Err(failure) => return refused(request, failure),
        };
        if is_open_to_all {
            return self.stream(request);
        }
        let taken = Taken::default();
        let proves = request.headers().contains_key(PROOF);
        if proves {
            let called = Called(request.uri().path().into());
            request.extensions_mut().insert(called);
        }
        request.extensions_mut().insert(taken.clone());
        request.extensions_mut().insert(place.clone());
        let asked = request
            .headers()
            .get("grpc-timeout")
            .and_then(|value| asked_deadline(value.as_bytes()));
        let deadline = patience(asked, self.shared.deadline);
        let gate = Arc::clone(&self.shared.gate);
        let answer = self.inner.call(request);
        let answer = async move {
            // Of a stream this is the time to its opening.
            let answer = match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer?,
                Err(_) => status(&Failure::new(Reason::Deadline), "").into_http(),
            };
            if taken.is_set() {
                return Ok(answer);
            }
            let failure = unread(&answer, method);
            let said = failure.clone();
            // A task of its own: what is refused is recorded even when its caller, or tonic on its behalf, has stopped waiting.
            let recorded = tokio::spawn(async move {
                let recorded = gate.record_unreadable(origin, method, &said).await;
                drop(place);
                recorded
            });
            let recorded = recorded.await.unwrap_or_else(|_| Err(Failure::new(Reason::Internal)));
            match recorded {
                // What is not gRPC at all is answered in HTTP.
                Ok(_) if answer.status() != http::StatusCode::OK => Ok(answer),
                Ok(request_id) => Ok(status(&failure, &request_id).into_http()),
                Err(failure) => Ok(status(&failure, "").into_http()),
            }
        };
        if !proves {
            return Box::pin(answer);
        }
        // Whoever proves a key hears what the next proof must carry, whatever became of this one.
        let gate = Arc::clone(&self.shared.gate);
        Box::pin(async move {
            let mut answer = answer.await?;
            let nonce = gate.nonce().and_then(|nonce| HeaderValue::try_from(nonce).ok());
            if let Some(nonce) = nonce {
                answer.headers_mut().insert(PROOF_NONCE, nonce);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_before_tonic_ends_it() {
        let millis = Duration::from_millis;
        for (asked, want) in [
            (None, millis(7_000)),
            (Some(millis(80)), millis(70)),
            (Some(millis(2_000)), millis(1_950)),
            (Some(DEADLINE_MAX * 2), DEADLINE_MAX),
            (Some(Duration::ZERO), Duration::ZERO),
        ] {
            assert_eq!(patience(asked, millis(7_000)), want, "{asked:?}");
        }
    }

    #[test]
    fn deadlines_parse_or_are_not_asked_for() {
        for (text, want) in [
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("5x", None),
        ] {
            assert_eq!(asked_deadline(text.as_bytes()), want, "{text:?}");
        }
    }
}

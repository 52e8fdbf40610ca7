//! A request and its answer: who asks, whether they may, and how they are told.

use super::{Output, Server};
use crate::auth::{authenticate, offered_algorithms, Denied, Freshness, Identity, Known, Signer};
use crate::request::Request;
use crate::{Flow, Now};
use moim_wire::stun::{reason_phrase, Attribute, Builder, Class, Fingerprint, Message, Method, TransactionId};

/// What an answer needs of its request.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub flow: Flow,
    pub transaction: TransactionId,
    pub method: Method,
    pub fingerprint: bool,
    pub signer: Option<Signer>,
}

/// An error answer: the code on the wire, and the reason for the administrator.
pub(crate) struct Refusal {
    pub code: u16,
    pub reason: String,
    pub unknown: Vec<u16>,
}

impl Refusal {
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            unknown: Vec::new(),
        }
    }
}

/// Attributes of a success answer; None when the answer comes later.
pub(crate) type Answer = Result<Option<Vec<Attribute<'static>>>, Refusal>;
type Handler = fn(&mut Server, Now, &Exchange, &Request<'_>, &Identity) -> Answer;

/// The methods that need credentials.
const HANDLERS: &[(Method, Handler)] = &[
    (Method::ALLOCATE, Server::allocate),
    (Method::REFRESH, Server::refresh),
    (Method::CREATE_PERMISSION, Server::create_permission),
    (Method::CHANNEL_BIND, Server::channel_bind),
];

impl Server {
    pub(super) fn on_request(&mut self, now: Now, flow: Flow, message: &Message<'_>) {
        if message.fingerprint() == Fingerprint::Wrong {
            self.counters.malformed += 1;
            return;
        }
        let method = message.method();
        let handler = HANDLERS
            .iter()
            .find(|(known, _)| *known == method)
            .map(|(_, handler)| *handler);
        if handler.is_none() && method != Method::BINDING {
            self.counters.malformed += 1;
            return;
        }
        let mut exchange = Exchange {
            flow,
            transaction: message.transaction(),
            method,
            fingerprint: false,
            signer: None,
        };
        let request = match Request::read(message) {
            Ok(request) => request,
            Err(error) => {
                if self.spend(now, flow) {
                    self.refuse(now, &exchange, Refusal::new(400, error.to_string()));
                }
                return;
            }
        };
        exchange.fingerprint = request.fingerprint;
        match handler {
            Some(handler) => self.on_guarded(now, exchange, message, &request, handler),
            None => self.on_binding(now, &exchange, &request),
        }
    }

    fn on_binding(&mut self, now: Now, exchange: &Exchange, request: &Request<'_>) {
        if !self.spend(now, exchange.flow) {
            return;
        }
        self.counters.binding_requests += 1;
        match known_attributes(request) {
            Ok(()) => self.succeed(exchange, &[Attribute::XorMappedAddress(exchange.flow.client)]),
            Err(refusal) => self.refuse(now, exchange, refusal),
        }
    }

    fn on_guarded(
        &mut self,
        now: Now,
        mut exchange: Exchange,
        message: &Message<'_>,
        request: &Request<'_>,
        handler: Handler,
    ) {
        let identity = match self.identify(now, &exchange, message, request) {
            Ok(identity) => identity,
            Err(None) => return,
            Err(Some(denied)) => return self.deny(now, &exchange, denied),
        };
        exchange.signer = Some(identity.signer.clone());
        self.counters.requests += 1;
        let answer = known_attributes(request).and_then(|()| handler(self, now, &exchange, request, &identity));
        let failed = answer.is_err();
        let answered = !matches!(answer, Ok(None));
        if let Some(allocation) = self.allocation(&exchange.flow).filter(|_| answered) {
            allocation.requests += 1;
            allocation.errors += u64::from(failed);
            allocation.successes += u64::from(!failed);
        }
        match answer {
            Ok(Some(attributes)) => self.succeed(&exchange, &attributes),
            Ok(None) => {}
            Err(refusal) => self.refuse(now, &exchange, refusal),
        }
    }

    /// Checks credentials in the order that costs an unproven source least: rate, nonce, key. `Err(None)` means silence.
    fn identify(
        &mut self,
        now: Now,
        exchange: &Exchange,
        message: &Message<'_>,
        request: &Request<'_>,
    ) -> Result<Identity, Option<Denied>> {
        let flow = exchange.flow;
        if request.integrity.is_none() && request.integrity_sha256.is_none() {
            if self.spend(now, flow) {
                self.counters.challenges += 1;
                self.challenge(now, exchange, 401);
            }
            return Err(None);
        }
        let nonce = match (request.nonce, request.realm) {
            (Some(nonce), Some(_)) => nonce,
            _ if self.spend(now, flow) => return Err(Some(Denied::Incomplete("nonce or realm is missing"))),
            _ => return Err(None),
        };
        if self.nonces.check(nonce, flow.client, now) == Freshness::Stale {
            return Err(self.spend(now, flow).then_some(Denied::StaleNonce));
        }
        // Only sources that failed often are kept from trying, and never those who hold an allocation already.
        if !self.by_flow.contains_key(&flow) && !self.failures.ready(flow.client.ip(), now.ms) {
            self.counters.rate_limited += 1;
            return Err(None);
        }
        let known = self
            .by_flow
            .get(&flow)
            .and_then(|slot| self.slots[*slot as usize].allocation.as_deref());
        let known = known.map(|allocation| Known {
            username: &allocation.identity.username,
            keys: allocation.identity.keys,
            listed: allocation.identity.listed,
        });
        authenticate(message, request, &self.policy, &self.config.realm, known, now).map_err(|denied| {
            self.failures.take(flow.client.ip(), now.ms);
            Some(denied)
        })
    }

    fn deny(&mut self, now: Now, exchange: &Exchange, denied: Denied) {
        match denied {
            Denied::Incomplete(what) => self.refuse(now, exchange, Refusal::new(400, what)),
            Denied::StaleNonce => {
                self.counters.stale_nonces += 1;
                self.challenge(now, exchange, 438);
            }
            Denied::UnknownUser | Denied::Expired | Denied::WrongPassword => {
                self.counters.unauthorized += 1;
                self.tell_refusal(now, exchange, 401, denied.reason().to_owned());
                self.challenge(now, exchange, 401);
            }
        }
    }

    fn spend(&mut self, now: Now, flow: Flow) -> bool {
        let left = self.unauthenticated.take(flow.client.ip(), now.ms);
        self.counters.rate_limited += u64::from(!left);
        left
    }

    fn challenge(&mut self, now: Now, exchange: &Exchange, code: u16) {
        self.counters.errors += 1;
        let nonce = self.nonces.issue(exchange.flow.client, now);
        let realm = self.config.realm.clone();
        self.answer(
            exchange,
            Class::Error,
            &[
                error_code(code),
                Attribute::Realm(&realm),
                Attribute::Nonce(nonce.as_bytes()),
                Attribute::PasswordAlgorithms(offered_algorithms().into()),
            ],
        );
    }

    pub(crate) fn succeed(&mut self, exchange: &Exchange, attributes: &[Attribute<'_>]) {
        self.counters.successes += 1;
        self.answer(exchange, Class::Success, attributes);
    }

    pub(crate) fn refuse(&mut self, now: Now, exchange: &Exchange, refusal: Refusal) {
        self.counters.errors += 1;
        match refusal.code {
            403 => self.counters.forbidden += 1,
            486 | 508 => self.counters.over_quota += 1,
            _ => {}
        }
        let mut attributes = vec![error_code(refusal.code)];
        if !refusal.unknown.is_empty() {
            attributes.push(Attribute::UnknownAttributes(refusal.unknown.into()));
        }
        self.answer(exchange, Class::Error, &attributes);
        self.tell_refusal(now, exchange, refusal.code, refusal.reason);
    }

    fn tell_refusal(&mut self, now: Now, exchange: &Exchange, code: u16, reason: String) {
        if let Some(event) = self.refusals.note(exchange.flow.client, code, reason, now.ms) {
            self.event(event);
        }
    }

    fn answer(&mut self, exchange: &Exchange, class: Class, attributes: &[Attribute<'_>]) {
        let mut builder = Builder::new(class, exchange.method, &exchange.transaction);
        for attribute in attributes {
            builder.add(attribute);
        }
        if let Some(signer) = &exchange.signer {
            if !self.config.software.is_empty() {
                builder.add(&Attribute::Software(&self.config.software));
            }
            if signer.sha256 {
                builder.integrity_sha256(&signer.key);
            } else {
                builder.integrity_sha1(&signer.key);
            }
        }
        if exchange.fingerprint {
            builder.fingerprint();
        }
        self.output(Output::Send {
            flow: exchange.flow,
            bytes: builder.finish(),
        });
    }
}

fn known_attributes(request: &Request<'_>) -> Result<(), Refusal> {
    if request.unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = request.unknown.iter().map(|kind| format!("0x{kind:04x}")).collect();
    Err(Refusal {
        unknown: request.unknown.clone(),
        ..Refusal::new(420, format!("unknown attributes {}", list.join(", ")))
    })
}

fn error_code(code: u16) -> Attribute<'static> {
    Attribute::ErrorCode {
        code,
        reason: reason_phrase(code).into(),
    }
}

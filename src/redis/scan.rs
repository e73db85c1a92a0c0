//! scan: all the keys that fit a pattern, a part at a time, wherever they live.

use redis::aio::ConnectionLike;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, RedisError, RedisResult, Value, cmd, from_redis_value};

use super::CacheConnection;

/// Keys that the server looks at for one answer: a fraction of a millisecond of its only thread.
const COUNT: u32 = 1_000;

/// Bytes of each key.
pub type Keys = Vec<Vec<u8>>;

/// What has not been gone through yet. A key that is there all the time comes at least once.
#[derive(Debug)]
pub struct Scan {
    pattern: String,
    /// By node, where to go on. None before the first part.
    left: Option<Vec<(Node, u64)>>,
}

/// Where a part of the keys is; `None` is the only place there is.
type Node = Option<(String, u16)>;

impl Scan {
    /// All keys that fit the pattern.
    pub fn new(pattern: String) -> Scan {
        Scan { pattern, left: None }
    }

    fn command(&self, cursor: u64) -> Cmd {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(COUNT);
        scan
    }
}

impl CacheConnection {
    /// The next part, which may be empty; `None` after the last.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub async fn scan(&mut self, scan: &mut Scan) -> RedisResult<Option<Keys>> {
        let Some(left) = &mut scan.left else {
            let (keys, left) = self.begin(scan).await?;
            scan.left = Some(left);
            return Ok(Some(keys));
        };
        let Some((node, cursor)) = left.pop() else { return Ok(None) };
        let command = scan.command(cursor);
        let reply = match (self, &node) {
            (CacheConnection::Cluster(cluster), Some((host, port))) => {
                let (host, port) = (host.clone(), *port);
                let node = SingleNodeRoutingInfo::ByAddress { host, port };
                cluster.route_command(command, RoutingInfo::SingleNode(node)).await?
            }
            (connection, _) => connection.ask(command).await?,
        };
        let (keys, cursor) = part(reply)?;
        if cursor != 0 {
            scan.left.get_or_insert_default().push((node, cursor));
        }
        Ok(Some(keys))
    }

    /// The first part of each node.
    async fn begin(&mut self, scan: &Scan) -> RedisResult<(Keys, Vec<(Node, u64)>)> {
        let command = scan.command(0);
        let parts: Vec<(Node, Value)> = match self {
            CacheConnection::Cluster(cluster) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let replies = cluster.route_command(command, all).await?;
                let replies: Vec<(String, Value)> = from_redis_value(replies)?;
                let by_node = replies.into_iter().map(|(address, reply)| {
                    let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
                    let port = port.parse().map_err(|_| unreadable("the address of a node"))?;
                    Ok((Some((host.to_owned(), port)), reply))
                });
                by_node.collect::<RedisResult<_>>()?
            }
            CacheConnection::Server(_) | CacheConnection::Master(..) => {
                vec![(None, self.ask(command).await?)]
            }
        };
        let (mut keys, mut left) = (Keys::new(), Vec::new());
        for (node, reply) in parts {
            let (some, cursor) = part(reply)?;
            keys.extend(some);
            if cursor != 0 {
                left.push((node, cursor));
            }
        }
        Ok((keys, left))
    }

    async fn ask(&mut self, command: Cmd) -> RedisResult<Value> {
        self.req_packed_command(&command).await?.extract_error()
    }
}

fn part(reply: Value) -> RedisResult<(Keys, u64)> {
    let (cursor, keys): (u64, Keys) = from_redis_value(reply)?;
    Ok((keys, cursor))
}

fn unreadable(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}

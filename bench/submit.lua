-- Load for wrk: one job a request. Arguments after --: the token and the JSON of a job, in which NUMBER becomes
-- another number each time, so that no two requests are the same.
local before, after, counter = "", "", 0

function init(arguments)
  local first, last = string.find(arguments[2], "NUMBER", 1, true)
  before, after = string.sub(arguments[2], 1, first - 1), string.sub(arguments[2], last + 1)
  wrk.method = "POST"
  wrk.headers["Authorization"] = "Bearer " .. arguments[1]
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  counter = counter + 1
  return wrk.format(nil, nil, nil, before .. counter .. after)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

-- Asks for every file in turn over kept connections; tells what came as JSON.
local requests, count, at = {}, 0, 0

function init(arguments)
  count = tonumber(arguments[1])
  for index = 0, count - 1 do
    local path = string.format("/f%03d.jpg", index)
    requests[index] = wrk.format("GET", path, { ["Host"] = "localhost" })
  end
end

function request()
  at = (at + 1) % count
  return requests[at]
end

function done(summary, latency, rates)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"bytes":%d,"seconds":%.6f,"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    e.connect, e.read, e.write, e.status, e.timeout))
end

-- Asks for everything named, in turn, over kept connections; tells what came as
-- JSON. The arguments are pairs of host and path.
local requests, count, at = {}, 0, 0

function init(arguments)
  for index = 1, #arguments, 2 do
    requests[count] = wrk.format("GET", arguments[index + 1], { ["Host"] = arguments[index] })
    count = count + 1
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

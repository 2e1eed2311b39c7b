-- For wrk: each request carries a field of its own, as tracing clients send it, so that no two of them are alike.
local head, count = nil, 0

function init(_)
   head = wrk.format():sub(1, -3) .. "X-Request-Id: "
end

function request()
   count = count + 1
   return head .. count .. "\r\n\r\n"
end

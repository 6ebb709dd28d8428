-- What the filter does, in Lua and as well as Lua can: the load balancer's blocks as ranges worked out beforehand, one
-- look at the peer, x-forwarded-proto and :scheme, four defaults where the request has none.
local FIRST_A, LAST_A = 127 * 2^24 + 2, 127 * 2^24 + 3          -- 127.0.0.2/31
local FIRST_B, LAST_B = 10 * 2^24, 10 * 2^24 + 2^16 - 1         -- 10.0.0.0/16
local BLOCK_C = "[2001:db8:0:"                                  -- 2001:db8::/56, as far as text can tell

local find, sub = string.find, string.sub

local function trusted(address)
  local _, _, a, b, c, d = find(address, "^(%d+)%.(%d+)%.(%d+)%.(%d+):")
  if not a then
    return sub(address, 1, #BLOCK_C) == BLOCK_C
  end
  local number = ((a * 256 + b) * 256 + c) * 256 + d
  return (number >= FIRST_A and number <= LAST_A) or (number >= FIRST_B and number <= LAST_B)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local scheme = "http"
  if trusted(handle:streamInfo():downstreamDirectRemoteAddress()) then
    scheme = "https"
  end
  headers:replace("x-forwarded-proto", scheme)
  headers:replace(":scheme", scheme)
  if headers:get("x-envoy-upstream-rq-timeout-ms") == nil then
    headers:add("x-envoy-upstream-rq-timeout-ms", "15000")
  end
  if headers:get("x-envoy-max-retries") == nil then
    headers:add("x-envoy-max-retries", "2")
  end
  if headers:get("x-envoy-upstream-rq-per-try-timeout-ms") == nil then
    headers:add("x-envoy-upstream-rq-per-try-timeout-ms", "5000")
  end
  if headers:get("x-envoy-retry-on") == nil then
    headers:add("x-envoy-retry-on", "connect-failure,refused-stream")
  end
end

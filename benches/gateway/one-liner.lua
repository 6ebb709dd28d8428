-- What people run today: everybody is https.
function envoy_on_request(handle)
  handle:headers():replace("x-forwarded-proto", "https")
end

import CCurl

// libcurl calls these on the transfer thread. They are top-level functions on purpose: a closure written in an isolated
// scope would carry an executor check and die there. `user` is an `Exchange` that the loop keeps alive while its easy
// handle exists.

private func exchange(_ user: UnsafeMutableRawPointer?) -> Exchange? {
    user.map { Unmanaged<Exchange>.fromOpaque($0).takeUnretainedValue() }
}

/// CURLOPT_WRITEFUNCTION
func curlBody(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?) -> Int
{
    exchange(user)?.body(UnsafeRawBufferPointer(start: data, count: size * count)) ?? 0
}

/// CURLOPT_HEADERFUNCTION
func curlHeader(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?)
    -> Int
{
    let line = UnsafeRawBufferPointer(start: data, count: size * count)
    // Any number but the line's size ends the exchange; no header line is empty.
    return exchange(user)?.header(line) == true ? line.count : 0
}

/// CURLOPT_READFUNCTION
func curlUpload(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?)
    -> Int
{
    let room = UnsafeMutableRawBufferPointer(start: data, count: size * count)
    let filled = exchange(user)?.upload(into: room) ?? -1
    return filled < 0 ? Int(CURL_READFUNC_ABORT) : filled
}

/// CURLOPT_SEEKFUNCTION
func curlSeek(_ user: UnsafeMutableRawPointer?, _ offset: curl_off_t, _ origin: Int32) -> Int32 {
    guard origin == 0, let exchange = exchange(user) else { return CURL_SEEKFUNC_FAIL }
    exchange.rewind(to: Int64(offset))
    return CURL_SEEKFUNC_OK
}

/// CURLOPT_PREREQFUNCTION
func curlConnected(
    _ user: UnsafeMutableRawPointer?, _ remote: UnsafeMutablePointer<CChar>?, _ local: UnsafeMutablePointer<CChar>?,
    _ remotePort: Int32, _ localPort: Int32
) -> Int32 {
    let address = remote.map { String(cString: $0) } ?? ""
    return exchange(user)?.connected(to: address) == true ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT
}

/// CURLOPT_SSL_CTX_FUNCTION
func curlTLS(
    _ easy: UnsafeMutableRawPointer?, _ context: UnsafeMutableRawPointer?, _ user: UnsafeMutableRawPointer?
) -> CURLcode {
    guard let context, let tls = exchange(user)?.request.tls, tls.prepare(context) else {
        return CURLE_SSL_CERTPROBLEM
    }
    return CURLE_OK
}

package transform

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"seriatim/processor"
)

const (
	// maxValue is the largest body that is one value: topics take no larger record
	// unless they are told to, and the pipeline emits none.
	maxValue = 1 << 20
	// maxList is the largest body with several outputs, which takes more room than
	// their values (JSON escapes, base64): 256 MiB for 64 workers.
	maxList = 4 << 20
	// maxOutputs is the most outputs of one record. It bounds what a small reply
	// can grow to: some 400 bytes for each.
	maxOutputs = 10000
)

// The content types that are not one value.
const (
	linesType   = "application/x-ndjson"
	outputsType = "application/vnd.seriatim.outputs+json"
)

// A malformedError is a reply that breaks the contract. It tells where, and
// never quotes the reply, which may hold somebody's data.
type malformedError struct{ err error }

func (e *malformedError) Error() string { return e.err.Error() }
func (e *malformedError) Unwrap() error { return e.err }

func malformed(format string, args ...any) error {
	return &malformedError{fmt.Errorf(format, args...)}
}

// reply reads what a worker made of a record: it adds the outputs, or returns
// why the attempt failed. An error that is no Failure is one of reading.
func (e *endpoint) reply(resp *http.Response, in processor.Input, out *processor.Outputs) error {
	filtered, err := e.verdict(resp)
	if err == nil && !filtered {
		err = e.value(resp, in, out)
	}
	return e.judged(err)
}

// judged makes a failure of a reply that breaks the contract.
func (e *endpoint) judged(err error) error {
	var broken *malformedError
	if errors.As(err, &broken) {
		return e.fail(processor.Retry, "its reply breaks the contract: %w; mend the worker (docs/workers.md)", broken)
	}
	return err
}

// verdict says what the head of a reply means: the record is filtered, the
// attempt failed, or (neither) the body holds the outputs.
func (e *endpoint) verdict(resp *http.Response) (filtered bool, _ error) {
	outcome, given, err := single(resp.Header, outcomeHeader)
	switch {
	case err != nil:
		return false, err
	case given && outcome == "filter":
		return true, nil
	case given && outcome == "reject":
		return false, e.reject(resp)
	case given && outcome == "retry":
		return false, e.retry(resp)
	case given:
		return false, malformed("%s must be filter, reject or retry", outcomeHeader)
	}
	switch code := resp.StatusCode; code {
	case http.StatusOK, http.StatusCreated:
		return false, nil
	case http.StatusNoContent:
		if len(resp.Header[valueHeader]) > 0 {
			return false, malformed("204 filters the record; answer 200 with %s: null for a null value", valueHeader)
		}
		return true, nil
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		http.StatusUnprocessableEntity, http.StatusRequestHeaderFieldsTooLarge:
		return false, e.reject(resp)
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false, e.retry(resp)
	case http.StatusNotImplemented:
		return false, e.deployment(resp, "check the path in transform.http.urls")
	default:
		if 500 <= code && code <= 599 {
			return false, e.retry(resp)
		}
		return false, e.deployment(resp, advice(code))
	}
}

// advice says what an operator can do about a status that has nothing to do with
// the record.
func advice(status int) string {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "have it let us in, or see transform.http.bearer_token_file, basic_auth and tls"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return "check the path in transform.http.urls"
	case 300 <= status && status <= 399:
		return fmt.Sprintf("only 307 and 308 within the host are followed, and only %d times; name the final address in transform.http.urls", maxRedirects)
	default:
		return "no worker answers so; check that transform.http.urls names one"
	}
}

func (e *endpoint) reject(resp *http.Response) error {
	return e.fail(processor.Reject, "%s: this record can never work%s", answer(resp), reason(resp))
}

func (e *endpoint) retry(resp *http.Response) error {
	failure := e.fail(processor.Retry, "%s%s", answer(resp), reason(resp))
	failure.After = retryAfter(resp.Header.Get("Retry-After"))
	return failure
}

func (e *endpoint) deployment(resp *http.Response, advice string) error {
	return e.fail(processor.Deployment, "%s: %s%s", answer(resp), advice, reason(resp))
}

// answer names what decided.
func answer(resp *http.Response) string {
	if outcome := resp.Header.Get(outcomeHeader); outcome != "" {
		return "answered " + outcomeHeader + ": " + outcome
	}
	return strings.TrimSpace(fmt.Sprintf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
}

// reason is what the worker says in Seriatim-Error, as the end of a message. It
// is for people: what cannot be decoded is shown as it is.
func reason(resp *http.Response) string {
	text := resp.Header.Get(errorHeader)
	if text == "" {
		return ""
	}
	if decoded, err := decodeValue(strings.ReplaceAll(text, " ", "%20")); err == nil {
		text = string(decoded)
	}
	const longest = 500
	quoted := strconv.Quote(text[:min(len(text), longest)]) // no control characters in logs
	return ": " + quoted
}

// retryAfter reads a Retry-After header: seconds, or a date. What cannot be read
// asks for nothing.
func retryAfter(value string) time.Duration {
	const longest = 24 * time.Hour // more than any retry.max that makes sense
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, time.Until(date)), longest)
}

// single returns the value of a header that may stand once at most.
func single(header http.Header, name string) (value string, given bool, _ error) {
	switch values := header[name]; len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	default:
		return "", true, malformed("%s is given %d times", name, len(values))
	}
}

// value adds the outputs that a reply with a body holds.
func (e *endpoint) value(resp *http.Response, in processor.Input, out *processor.Outputs) error {
	base, err := outlineOf(resp.Header, in)
	if err != nil {
		return err
	}
	value, null, err := single(resp.Header, valueHeader)
	if err != nil {
		return err
	}
	if null && value != "null" {
		return malformed("%s must be null", valueHeader)
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	limit := int64(maxValue)
	if mediaType == linesType || mediaType == outputsType {
		limit = maxList
	}
	body, err := e.body(resp, limit)
	switch {
	case err != nil:
		return err
	case null && len(body) > 0:
		return malformed("%s: null has a body", valueHeader)
	case null:
		base.add(out, nil)
	case mediaType == linesType:
		err = addLines(base, body, out)
	case mediaType == outputsType:
		err = addOutputs(base, body, out)
	default:
		base.add(out, body)
	}
	if errors.Is(err, errTooMany) {
		return e.fail(processor.Reject, "its reply has more than %d outputs; have it make fewer of one record", maxOutputs)
	}
	return err
}

// body reads a body of up to limit bytes. It is never nil.
func (e *endpoint) body(resp *http.Response, limit int64) ([]byte, error) {
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, malformed("its body has a Content-Encoding, which was not asked for")
	}
	size := resp.ContentLength
	if 0 <= size && size <= limit {
		body := make([]byte, size)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	if size < 0 {
		body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err != nil || int64(len(body)) <= limit {
			return body, err
		}
		return nil, e.fail(processor.Reject, "its reply has more than the %d bytes that may be; have it answer with less", limit)
	}
	return nil, e.fail(processor.Reject, "its reply has %d bytes, more than the %d that may be; have it answer with less", size, limit)
}

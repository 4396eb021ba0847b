package transform

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// JSON objects travel between us and a process as lines, or with their length before
// them: 4 bytes, the most significant first. Such a frame may hold line breaks, and its
// reader knows beforehand how long it is.

// A messageReader reads what a process says. A message is valid until the next call. Of
// one that is longer than it may be the beginning is kept.
type messageReader interface {
	next() (message []byte, tooLong bool, _ error)
}

func (p *Pool) reader(r io.Reader) messageReader {
	buffered := bufio.NewReaderSize(r, 64<<10)
	if p.opts.LengthPrefixed {
		return &frameReader{Reader: buffered}
	}
	return &lineReader{Reader: buffered}
}

// message writes a line as the process is to get it. An error stays with the writer.
func (p *Pool) message(out *bufio.Writer, line []byte) {
	if p.opts.LengthPrefixed {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(line)))
		_, _ = out.Write(length[:])
	}
	_, _ = out.Write(line)
}

// unit is what a message is called.
func (p *Pool) unit() string {
	if p.opts.LengthPrefixed {
		return "frame"
	}
	return "line"
}

// A frameReader reads messages with their length before them, of up to maxReply bytes.
type frameReader struct {
	*bufio.Reader
	frame []byte
}

// next returns a frame. What the input ends within is none.
func (r *frameReader) next() (frame []byte, tooLong bool, _ error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, false, err
	}
	size := int64(binary.BigEndian.Uint32(length[:]))
	if size > endless {
		return nil, true, fmt.Errorf("a frame of %d bytes %w; it begins with %q: is that text, and no length?", size, errEndless, length)
	}
	// It grows as the bytes come: whoever announces much has not sent it.
	buffer := bytes.NewBuffer(r.frame[:0])
	_, err := io.CopyN(buffer, r, min(size, maxReply))
	if err == nil {
		_, err = io.CopyN(io.Discard, r, size-min(size, maxReply))
	}
	r.frame = buffer.Bytes()
	return r.frame, size > maxReply, err
}

// A lineReader reads lines of up to max bytes (maxReply if zero). Of longer ones it
// keeps the beginning.
type lineReader struct {
	*bufio.Reader
	max  int
	line []byte
}

var errEndless = errors.New("has no end")

// next returns a line without its line break; it is valid until the next call. At
// the end of the input what is left stands with the error.
func (r *lineReader) next() (line []byte, tooLong bool, _ error) {
	r.line = r.line[:0]
	longest, size := cmp.Or(r.max, maxReply), 0
	for {
		part, err := r.ReadSlice('\n')
		size += len(part)
		part = bytes.TrimSuffix(part, []byte("\n"))
		r.line = append(r.line, part[:min(len(part), longest-len(r.line))]...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && size < endless:
		case errors.Is(err, bufio.ErrBufferFull):
			return r.line, true, fmt.Errorf("a line of its output %w", errEndless)
		default:
			return r.line, size > longest+1, err
		}
	}
}
